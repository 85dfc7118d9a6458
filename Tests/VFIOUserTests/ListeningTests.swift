import Glibc
import Ixy
import Testing

@testable import VFIOUser

/// The socket's path: who may have it, and what becomes of it.
@Suite struct ListeningTests {
  private func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  @Test func `the path is gone with the server`() throws {
    let path = socketPath()
    var server: VFIOUserServer? = try VFIOUserServer(model: ToyModel(), path: path)
    #expect(exists(path) && server?.path == path)
    server = nil
    #expect(!exists(path))
  }

  @Test func `nothing but the path is left in its folder`() throws {
    let path = socketPath()
    let server = try VFIOUserServer(model: ToyModel(), path: path)
    #expect(!exists("\(server.path).\(getpid())"))
  }

  @Test func `a path where a server runs is refused`() throws {
    let server = try VFIOUserServer(model: ToyModel(), path: socketPath())
    let error = #expect(throws: DeviceError.self) {
      try VFIOUserServer(model: ToyModel(), path: server.path)
    }
    #expect(try #require(error).description.contains("another server is running there"))
    #expect(exists(server.path))
    // The question was a client that came and went; the next one is served.
    let client = try RawClient(server)
    try client.negotiate()
  }

  @Test func `a path whose server has no room for the question is refused`() throws {
    let server = try VFIOUserServer(model: ToyModel(), path: socketPath())
    var waiting: [OpenFile] = []
    while case .success(let socket) = connectSocket(to: server.path) {
      waiting.append(OpenFile(socket))
    }
    #expect(throws: DeviceError.self) {
      try VFIOUserServer(model: ToyModel(), path: server.path)
    }
    let error = #expect(throws: DeviceError.self) {
      try VFIOUserDevice(path: server.path, timeout: .milliseconds(50))
    }
    #expect(try #require(error).description.contains("Connect"))
  }

  @Test func `a socket that a dead server has left is replaced`() throws {
    let path = socketPath()
    let left = OpenFile(socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(left.number, $0, size) }
    }
    #expect(result == 0)
    let server = try VFIOUserServer(model: ToyModel(), path: path)
    try RawClient(server).negotiate()
  }

  @Test func `a file that is no socket is left alone`() throws {
    let path = socketPath()
    close(creat(path, 0o600))
    defer { unlink(path) }
    let error = #expect(throws: DeviceError.self) {
      try VFIOUserServer(model: ToyModel(), path: path)
    }
    #expect(try #require(error).description.contains("no socket"))
    #expect(exists(path))
  }

  @Test func `a server whose path another one has taken leaves it alone`() throws {
    let path = socketPath()
    var first: VFIOUserServer? = try VFIOUserServer(model: ToyModel(), path: path)
    unlink(path)
    let second = try VFIOUserServer(model: ToyModel(), path: path)
    #expect(first != nil)
    first = nil
    #expect(exists(second.path))
  }

  @Test(arguments: [
    "/nowhere/at/all", "/tmp/" + String(repeating: "x", count: 200), "", "/proc/x",
  ])
  func `a path that cannot be is refused`(path: String) {
    #expect(throws: DeviceError.self) { try VFIOUserServer(model: ToyModel(), path: path) }
    #expect(throws: DeviceError.self) { try VFIOUserDevice(path: path) }
  }

  @Test func `further clients wait for their turn`() throws {
    let server = try VFIOUserServer(model: ToyModel(), path: socketPath())
    var first: RawClient? = try RawClient(server)
    try #require(first).negotiate()
    let second = try RawClient(server)
    second.send(
      Message(id: 1, command: .version, payload: Version.payload(json: [])).bytes)
    #expect(second.drain().bytes.isEmpty)
    first = nil
    #expect(second.drain().bytes.count == 20)
  }

  @Test func `nobody is served before the last client's pages are renewed`() throws {
    let model = try ToyModel()
    let server = try VFIOUserServer(model: model, path: socketPath())
    var first: RawClient? = try RawClient(server)
    try #require(first).negotiate()
    model.hasMemory = false
    first = nil
    let second = try RawClient(server)
    second.send(
      Message(id: 1, command: .version, payload: Version.payload(json: [])).bytes)
    #expect(second.drain().bytes.isEmpty)
    model.hasMemory = true
    #expect(second.drain().bytes.count == 20)
  }

  @Test func `a client that says nothing does not keep others waiting for ever`() throws {
    let server = try VFIOUserServer(model: ToyModel(), path: socketPath())
    server.patience = .milliseconds(200)
    let silent = try RawClient(server)
    server.patience = .seconds(60)
    let next = try RawClient(server)
    usleep(250_000)
    try next.negotiate()
    #expect(silent.receive().bytes.isEmpty)
  }

  @Test func `a client that stops in the middle of a message is disconnected`() throws {
    let server = try VFIOUserServer(model: ToyModel(), path: socketPath())
    let client = try RawClient(server)
    try client.negotiate()
    server.patience = .milliseconds(200)
    client.send([1, 0, 9, 0])
    _ = server.poll()
    #expect(server.hasClient)
    usleep(250_000)
    _ = server.poll()
    #expect(!server.hasClient)
  }

  @Test func `a client that is idle between messages stays`() throws {
    let server = try VFIOUserServer(model: ToyModel(), path: socketPath())
    let client = try RawClient(server)
    try client.negotiate()
    server.patience = .milliseconds(200)
    _ = server.poll()
    usleep(250_000)
    _ = server.poll()
    #expect(try client.refusal(.reset) == nil)
  }
}
