import CIxy
import Emulation
import Glibc
import Ixy
import Synchronization
import Testing

@testable import VFIOUser

/// A path for a socket that nobody else uses.
func socketPath() -> String {
  let number = pathCounter.add(1, ordering: .relaxed).newValue
  return "/tmp/vfio-user-test-\(getpid())-\(number)"
}

private let pathCounter = Atomic<Int>(0)

/// Bytes from hexadecimal digits, with anything else between them.
func bytes(_ digits: String) -> [UInt8] {
  let digits = digits.compactMap(\.hexDigitValue)
  return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

func hex(_ bytes: some Sequence<UInt8>) -> String {
  bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

/// A descriptor that can be in an array and in an expectation.
final class OpenFile {
  private let file: FileDescriptor

  init(_ number: Int32) { file = FileDescriptor(owning: number) }

  var number: Int32 { file.number }

  /// What an eventfd has counted since the last call.
  func count() -> UInt64 {
    var value: UInt64 = 0
    return read(number, &value, 8) == 8 ? value : 0
  }

  /// Whether an eventfd is signalled within a minute.
  func isSignalled() -> Bool {
    var entry = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 60_000) == 1 && count() > 0
  }
}

func makeEventFD() -> OpenFile { OpenFile(eventfd(0, Int32(EFD_NONBLOCK))) }

func makeMemory(_ size: Int, name: String = "test") -> OpenFile {
  let number = ixy_memfd(name, IXY_MEMFD_CLOEXEC)
  ftruncate(number, size)
  return OpenFile(number)
}

/// The number of descriptors that this process has open on memory of that name.
func openFiles(named name: String) -> Int {
  (0..<2048).filter { number in
    var target = [UInt8](repeating: 0, count: 64)
    let size = readlink("/proc/self/fd/\(number)", &target, target.count)
    let text = String(decoding: target.prefix(max(0, size)), as: UTF8.self)
    return text.contains("memfd:\(name)")
  }.count
}

/// A client that sends whatever bytes a test wants, to a server in the same thread.
final class RawClient {
  let socket: FileDescriptor
  let server: VFIOUserServer
  private var room = [UInt8](repeating: 0, count: 65536)

  init(_ server: VFIOUserServer) throws {
    self.server = server
    socket = FileDescriptor(owning: try connectSocket(to: server.path).get())
    while server.poll() > 0 {}
  }

  /// A child that another test is just starting may have a copy of the socket: closing alone would be no end.
  deinit { shutdown(socket.number, Int32(SHUT_RDWR)) }

  /// Sends bytes, as far as the socket takes them.
  func send(_ bytes: [UInt8], files: [Int32] = []) {
    _ = bytes.withUnsafeBytes { bytes in
      ixy_send_fds(
        socket.number, bytes.baseAddress, UInt(bytes.count), files, Int32(files.count))
    }
  }

  /// All that has come, and the number of descriptors that came with it; they are closed.
  func receive() -> (bytes: [UInt8], files: Int) {
    var result: [UInt8] = []
    var files = 0
    while true {
      var numbers = [Int32](repeating: -1, count: 16)
      var count: Int32 = 16
      let size = ixy_receive_fds(
        socket.number, &room, UInt(room.count), &numbers, &count, Int32(MSG_DONTWAIT))
      for number in numbers.prefix(Int(max(0, count))) { close(number) }
      files += Int(max(0, count))
      if size <= 0 { return (result, files) }
      result += room.prefix(size)
    }
  }

  /// Sends bytes, lets the server work, and returns what it answers.
  func ask(_ bytes: [UInt8], files: [Int32] = []) -> [UInt8] {
    send(bytes, files: files)
    return drain().bytes
  }

  /// Lets the server work until it has nothing to do, and returns what it sends.
  func drain() -> (bytes: [UInt8], files: Int) {
    var result = (bytes: [UInt8](), files: 0)
    while true {
      let work = server.poll()
      let part = receive()
      result.bytes += part.bytes
      result.files += part.files
      if work == 0, part.bytes.isEmpty { return result }
    }
  }

  func ask(
    _ command: Command, _ payload: [UInt8] = [], files: [Int32] = [], flags: Message.Flags = [],
    id: UInt16 = 7
  ) throws -> Message {
    let message = Message(id: id, command: command, flags: flags, payload: payload)
    return try Message(bytes: ask(message.bytes, files: files)[...])
  }

  /// The errno that a command gets; nil when it succeeds.
  func refusal(
    _ command: Command, _ payload: [UInt8] = [], files: [Int32] = []
  ) throws -> Int32? {
    let reply = try ask(command, payload, files: files)
    return reply.flags.contains(.error) ? Int32(reply.error) : nil
  }

  /// Says VERSION, as everybody must first.
  func negotiate() throws {
    let reply = try ask(.version, Version.payload(json: Capabilities.ours.json))
    #expect(reply.flags == .reply)
  }
}

/// Serves a model on a thread of its own while `body` runs.
func withServer<Result>(
  _ model: any DeviceModel, sharesPages: Bool = true, _ body: (_ path: String) throws -> Result
) throws -> Result {
  let server = try VFIOUserServer(model: model, path: socketPath(), sharesPages: sharesPages)
  let job = ServerJob([server])
  defer { job.stop() }
  return try body(server.path)
}

/// Servers that run on a thread of their own until `stop`.
final class ServerJob {
  private var servers: [VFIOUserServer]
  private let isStopped: Flag
  private let thread: TestThread

  private final class Flag: Sendable {
    let value = Atomic<Bool>(false)
  }

  init(_ servers: [VFIOUserServer]) {
    let flag = Flag()
    self.servers = servers
    isStopped = flag
    thread = TestThread {
      VFIOUserServer.run(servers) { flag.value.load(ordering: .acquiring) }
    }
  }

  /// Stops, and drops the servers.
  func stop() {
    isStopped.value.store(true, ordering: .releasing)
    thread.join()
    servers = []
  }
}

/// A thread, to be joined before what it uses is used again.
final class TestThread {
  private var thread = pthread_t()

  private final class Body {
    let call: () -> Void
    init(_ call: @escaping () -> Void) { self.call = call }
  }

  init(_ body: @escaping () -> Void) {
    pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().call()
        return nil
      }, Unmanaged.passRetained(Body(body)).toOpaque())
  }

  func join() { pthread_join(thread, nil) }
}
