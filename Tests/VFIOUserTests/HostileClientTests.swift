import Emulation
import Glibc
import Ixy
import Testing

@testable import VFIOUser

/// Clients that break the protocol: the server answers or disconnects, and serves the next one.
@Suite struct HostileClientTests {
  private let model: ToyModel
  private let server: VFIOUserServer

  init() throws {
    model = try ToyModel()
    server = try VFIOUserServer(model: model, path: socketPath())
  }

  private func header(_ command: UInt16, size: UInt32, flags: UInt32 = 0) -> [UInt8] {
    var header: [UInt8] = []
    header.append(field: UInt16(1))
    header.append(field: command)
    return header + [UInt8](words: size, flags, 0)
  }

  /// Whether the server still serves a client that behaves.
  private func expectService() throws {
    #expect(!server.hasClient)
    let client = try RawClient(server)
    try client.negotiate()
    #expect(try client.refusal(.deviceInfo, [UInt8](words: 16, 0, 0, 0)) == nil)
  }

  @Test(arguments: [0, 15, UInt32(Message.maxSize) + 1, .max])
  func `a header that names a wrong size ends the connection`(size: UInt32) throws {
    let client = try RawClient(server)
    try client.negotiate()
    #expect(client.ask(header(9, size: size)).isEmpty)
    try expectService()
  }

  @Test func `a header without the rest ends with its socket`() throws {
    for size in 1...15 {
      var client: RawClient? = try RawClient(server)
      client?.send(Array(header(1, size: 16).prefix(size)))
      client = nil
      while server.poll() > 0 {}
    }
    try expectService()
  }

  @Test func `a message may come byte by byte`() throws {
    let client = try RawClient(server)
    let message = Message(
      id: 3, command: .version, payload: Version.payload(json: Capabilities.ours.json))
    for byte in message.bytes.dropLast() { #expect(client.ask([byte]).isEmpty) }
    #expect(client.ask([0]).count > 16)
  }

  @Test func `many messages may come at once`() throws {
    let client = try RawClient(server)
    try client.negotiate()
    let one = header(13, size: 16)
    #expect(client.ask([[UInt8]](repeating: one, count: 200).flatMap { $0 }).count == 200 * 16)
    #expect(model.resets == 200)
  }

  @Test func `the largest message is taken`() throws {
    let client = try RawClient(server)
    try client.negotiate()
    let data = [UInt8](repeating: 0, count: Message.maxSize - Message.headerSize)
    client.send(header(9, size: UInt32(Message.maxSize)))
    var rest = data[...]
    var answer: [UInt8] = []
    while !rest.isEmpty {
      answer += client.ask(Array(rest.prefix(65536)))
      rest = rest.dropFirst(65536)
    }
    #expect(answer.count == 32)
  }

  @Test func `a client that does not read its replies stops only itself`() throws {
    let client = try RawClient(server)
    try client.negotiate()
    let read = Message(
      id: 1, command: .regionRead,
      payload: RegionAccess(offset: 0, region: 7, count: 4096).payload)
    // More than the socket holds.
    for _ in 0..<200 {
      client.send(read.bytes)
      _ = server.poll()
    }
    #expect(server.hasClient)
    #expect(client.drain().bytes.count % (32 + 4096) == 0)
    #expect(try client.refusal(.reset) == nil)
  }

  @Test func `commands before VERSION end the connection`() throws {
    let client = try RawClient(server)
    let reply = try client.ask(.reset)
    #expect(reply.flags == [.reply, .error])
    #expect(model.resets == 1)
    try expectService()
  }

  @Test func `a version that is not ours ends the connection`() throws {
    let client = try RawClient(server)
    #expect(try client.refusal(.version, [1, 0, 0, 0]) == EINVAL)
    try expectService()
  }

  @Test func `a reply to nothing ends the connection`() throws {
    let client = try RawClient(server)
    try client.negotiate()
    #expect(client.ask(header(9, size: 16, flags: 1)).isEmpty)
    try expectService()
  }

  @Test func `a message of an unknown type ends the connection`() throws {
    let client = try RawClient(server)
    try client.negotiate()
    #expect(client.ask(header(9, size: 16, flags: 2)).isEmpty)
    try expectService()
  }

  @Test(arguments: [0, 19, 255, .max] as [UInt16])
  func `an unknown command is refused`(command: UInt16) throws {
    let client = try RawClient(server)
    try client.negotiate()
    let reply = try Message(bytes: client.ask(header(command, size: 16))[...])
    #expect(reply.error == EINVAL)
    #expect(reply.command == command)
    #expect(server.hasClient)
  }

  @Test func `what wants no reply gets none even when it is refused`() throws {
    let client = try RawClient(server)
    try client.negotiate()
    for command: UInt16 in 1...20 {
      #expect(client.ask(header(command, size: 16, flags: 0x10)).isEmpty)
    }
    #expect(server.hasClient)
  }

  @Test func `descriptors that nobody wants are closed`() throws {
    let file = makeMemory(4096, name: "unwanted")
    let files = [Int32](repeating: file.number, count: 16)
    let client = try RawClient(server)
    try client.negotiate()
    for command in [Command.reset, .deviceInfo, .regionRead, .mapDMA, .setIRQs] {
      #expect(try client.refusal(command, files: files) == EINVAL)
    }
    #expect(openFiles(named: "unwanted") == 1)
  }

  @Test func `descriptors that come in several parts are counted together`() throws {
    let file = makeMemory(4096, name: "parts")
    let files = [Int32](repeating: file.number, count: 16)
    let client = try RawClient(server)
    try client.negotiate()
    client.send(header(13, size: 32), files: files)
    client.send([1], files: files)
    #expect(client.drain().bytes.isEmpty)
    try expectService()
    #expect(openFiles(named: "parts") == 1)
  }

  @Test func `reports come to an end, also when the client comes again and again`() throws {
    var reports = 0
    server.onReport = { _ in reports += 1 }
    for _ in 0..<20 {
      var client: RawClient? = try RawClient(server)
      try client?.negotiate()
      for _ in 0..<50 { _ = client?.ask(header(99, size: 16)) }
      client = nil
      while server.poll() > 0 {}
    }
    #expect(reports < 30)
  }

  /// Maps a page that is gone, and lets the device read it.
  private func truncate(_ client: RawClient) throws {
    let file = makeMemory(8192)
    var payload = [UInt8](words: 32, 3)
    for value in [0, 0x5000, 8192] as [UInt64] { payload.append(field: value) }
    #expect(try client.refusal(.mapDMA, payload, files: [file.number]) == nil)
    #expect(ftruncate(file.number, 0) == 0)
    typealias Register = ToyModel.Register
    for (offset, value) in [
      (Register.source, 0x5000), (Register.target, 0x6000), (Register.length, 4096),
      (Register.go, 1),
    ] {
      var write = RegionAccess(offset: UInt64(offset), region: 0, count: 4).payload
      write.append(field: UInt32(value))
      client.send(Message(id: 1, command: .regionWrite, payload: write).bytes)
    }
    _ = client.drain()
  }

  @Test func `a client that truncates memory under the device is disconnected`() throws {
    var reports: [String] = []
    server.onReport = { reports.append($0) }
    let client = try RawClient(server)
    try client.negotiate()
    try truncate(client)
    #expect(reports.contains { $0.contains("truncated") })
    try expectService()
  }

  @Test func `memory that one client truncates is no other's`() throws {
    let other = try VFIOUserServer(model: ToyModel(), path: socketPath())
    let honest = try RawClient(other)
    try honest.negotiate()
    let client = try RawClient(server)
    try client.negotiate()
    try truncate(client)
    #expect(!server.hasClient)
    _ = (other.poll(), other.step())
    #expect(try honest.refusal(.reset) == nil)
  }

  @Test func `a client that goes leaves its mappings before new pages are made`() throws {
    var client: RawClient? = try RawClient(server)
    try client?.negotiate()
    let file = makeMemory(4096)
    var payload = [UInt8](words: 32, 3)
    for value in [0, 0, 4096] as [UInt64] { payload.append(field: value) }
    #expect(try client?.refusal(.mapDMA, payload, files: [file.number]) == nil)
    #expect(try client?.refusal(.reset) == nil)
    #expect(model.mappingsAtReset == 1)
    client = nil
    while server.poll() > 0 {}
    #expect(model.mappingsAtReset == 0)
  }

  @Test func `messages that take long leave the device its turn`() throws {
    let client = try RawClient(server)
    try client.negotiate()
    model.writeTime = 2000
    let payload = RegionAccess(offset: 8, region: 0, count: 4).payload + [1, 2, 3, 4]
    for _ in 0..<20 { client.send(Message(id: 1, command: .regionWrite, payload: payload).bytes) }
    #expect(server.poll() == 1)
  }

  @Test func `a deadline that was met is forgotten`() throws {
    let client = try RawClient(server)
    try client.negotiate()
    server.patience = .milliseconds(200)
    let message = header(13, size: 16)
    // Now it does not take its last reply ...
    let read = Message(
      id: 1, command: .regionRead,
      payload: RegionAccess(offset: 0, region: 7, count: 4096).payload)
    repeat {
      client.send(read.bytes)
      _ = server.poll()
    } while server.pollEntry.events != Int16(POLLOUT)
    // ... now it does, before the server looks again, and long after that it is in the middle of a message.
    _ = client.receive()
    _ = client.drain()
    usleep(250_000)
    #expect(client.ask(Array(message.prefix(8))).isEmpty)
    #expect(client.ask(Array(message.dropFirst(8))).count == 16)
  }

  @Test func `mutated messages leave a server that works`() throws {
    // A small config space, or most of the time would go into reading it.
    let model = try ToyModel(configSize: 256)
    let server = try VFIOUserServer(model: model, path: socketPath())
    var fuzzer = ClientFuzzer(server, seed: 20)
    try fuzzer.run(messages: fuzzCount)
    // The last client has gone.
    while server.poll() > 0 {}
    // Enough of them were taken, refused, or the end of their connection.
    #expect(fuzzer.taken > fuzzCount / 20)
    #expect(fuzzer.refused > fuzzCount / 20)
    #expect(fuzzer.connections > fuzzCount / 200)
    #expect(model.dma.count == 0)
    #expect(openFiles(named: "fuzz") == 1)
    let client = try RawClient(server)
    try client.negotiate()
    #expect(try client.refusal(.deviceInfo, [UInt8](words: 16, 0, 0, 0)) == nil)
  }
}

/// How many messages a test mutates; the environment can ask for more.
let fuzzCount = getenv("IXY_FUZZ_MESSAGES").flatMap { Int(String(cString: $0)) } ?? 40_000

/// Sends valid sequences with seeded mistakes in them.
private struct ClientFuzzer {
  private let server: VFIOUserServer
  private var random: SeededRandom
  private let memory = makeMemory(1 << 20, name: "fuzz")
  private let eventFD = makeEventFD()
  private let messages: [[UInt8]]
  private(set) var taken = 0
  private(set) var refused = 0
  private(set) var connections = 1

  init(_ server: VFIOUserServer, seed: UInt64) {
    self.server = server
    random = SeededRandom(seed: seed)
    let traffic = [
      QEMUTraffic.start, QEMUTraffic.remapping, QEMUTraffic.hugeUnmaps, QEMUTraffic.msix,
      QEMUTraffic.posted, QEMUTraffic.intx,
    ]
    messages = traffic.flatMap { text in
      text.replacing("\n  ", with: "").split(separator: "\n").filter { $0.hasPrefix(">") }
        .map { bytes(String($0.split(separator: " ").last ?? "")) }
    }
  }

  /// Sends that many messages, over as many connections as it takes.
  mutating func run(messages count: Int) throws {
    var client = try RawClient(server)
    for _ in 0..<count {
      if !server.hasClient || Int.random(in: 0..<500, using: &random) == 0 {
        client = try RawClient(server)
        connections += 1
        // Mostly past VERSION, where the rest is.
        if Int.random(in: 0..<20, using: &random) > 0 { client.send(messages[0]) }
      }
      let files = Int.random(in: 0..<4, using: &random) == 0 ? makeFiles() : []
      client.send(makeMessage(), files: files)
      _ = server.poll()
      _ = server.step()
      if let reply = try? Message(bytes: client.receive().bytes[...]) {
        if reply.flags == .reply { taken += 1 } else { refused += 1 }
      }
    }
  }

  private mutating func makeFiles() -> [Int32] {
    let count = [1, 1, 1, 2, 5, 16].randomElement(using: &random) ?? 1
    let file = Bool.random(using: &random) ? memory.number : eventFD.number
    return [Int32](repeating: file, count: count)
  }

  private mutating func makeMessage() -> [UInt8] {
    var message = messages.randomElement(using: &random) ?? []
    switch Int.random(in: 0..<10, using: &random) {
    case 0: break
    case 1...4: mutate(&message, bytes: Message.headerSize..<message.count)
    case 5: mutate(&message, bytes: 0..<message.count)
    case 6: setWord(&message)
    case 7: message = Array(message.prefix(Int.random(in: 0...message.count, using: &random)))
    case 8: message += messages.randomElement(using: &random)?.prefix(20) ?? []
    default: setCommand(&message)
    }
    // Where the size is left wrong, the rest of the connection is noise; mostly it is right.
    if Int.random(in: 0..<50, using: &random) > 0, message.count >= Message.headerSize {
      var size: [UInt8] = []
      size.append(field: UInt32(message.count))
      message.replaceSubrange(4..<8, with: size)
    }
    return message
  }

  private mutating func mutate(_ message: inout [UInt8], bytes range: Range<Int>) {
    guard !range.isEmpty else { return }
    for _ in 0..<Int.random(in: 1...3, using: &random) {
      let place = Int.random(in: range, using: &random)
      message[place] = UInt8.random(in: 0...255, using: &random)
    }
  }

  /// Puts a number at one of the limits where a 32-bit field may be.
  private mutating func setWord(_ message: inout [UInt8]) {
    let place = Int.random(in: 1..<message.count / 4, using: &random) * 4
    let limits: [UInt32] = [0, 1, 4, 7, 20, 4096, 0x7FFF_FFFF, 0x8000_0000, .max]
    var word: [UInt8] = []
    word.append(field: limits.randomElement(using: &random) ?? 0)
    message.replaceSubrange(place..<place + 4, with: word)
  }

  private mutating func setCommand(_ message: inout [UInt8]) {
    message[2] = UInt8.random(in: 0...20, using: &random)
  }
}
