import CIxy
import Emulation
import Glibc
import Synchronization
import Testing

@testable import Ixy
@testable import VFIOUser

/// Servers that break the protocol: the client throws, and its registers read as all ones.
@Suite struct HostileServerTests {
  /// How long a client waits that nobody will answer.
  private let short = Duration.milliseconds(200)

  /// Uses a device in every way that there is, as long as it answers.
  ///
  /// - Returns: The BAR, when it got that far.
  @discardableResult
  private func use(_ path: String, timeout: Duration = .seconds(60)) throws -> BAR {
    let device = try VFIOUserDevice(path: path, timeout: timeout)
    _ = try device.identity()
    let bar = try device.bar(0)
    let domain = DMADomain()
    try device.attach(to: domain)
    let memory = try domain.allocate(4096)
    let eventFD = makeEventFD()
    _ = try device.interruptCount(.msix)
    try device.setInterrupts(.msix, eventFDs: [eventFD.number])
    if bar.size >= 0x2000 {
      bar.write(memory.iova, to: 8, width: 8)
      _ = bar.read(0, width: 4)
      bar.write(1, to: 0x1000, width: 4)
      _ = bar.read(0x1000, width: 4)
    }
    try device.reset()
    return bar
  }

  @Test func `the server that these tests change is in order when unchanged`() throws {
    let server = try FakeServer { _, reply in reply }
    #expect(try use(server.path).size == 0x2000)
  }

  /// What the device throws when the reply to `command` becomes what `change` makes of it.
  private func error(
    at command: Command, timeout: Duration = .seconds(60),
    _ change: @escaping @Sendable (FakeServer.Reply) -> FakeServer.Reply
  ) throws -> DeviceError {
    let server = try FakeServer { message, reply in
      message.command == command.rawValue ? change(reply) : reply
    }
    var timeout = timeout
    while true {
      let error = try #require(
        #expect(throws: DeviceError.self) { try use(server.path, timeout: timeout) })
      // Where a machine is busy, the server's thread may have come too late for VERSION already: once more.
      let isLate = command != .version && error.description.contains("it does not answer")
      guard isLate, timeout < .seconds(60) else { return error }
      timeout *= 2
    }
  }

  @Test(arguments: [
    Command.deviceInfo, .regionInfo, .regionRead, .mapDMA, .irqInfo, .setIRQs, .reset,
  ])
  func `a server that is silent is a timeout`(command: Command) throws {
    let error = try error(at: command, timeout: short) { _ in FakeServer.Reply() }
    guard case .timeout = error else { throw error }
  }

  @Test func `a server that never answers at all is one that is busy`() throws {
    let error = try error(at: .version, timeout: short) { _ in FakeServer.Reply() }
    #expect(error.description.contains("does not answer"))
  }

  @Test func `a server that sends a byte at a time is a timeout`() throws {
    let error = try error(at: .regionInfo, timeout: short) { reply in
      var slow = reply
      slow.pause = 20_000
      return slow
    }
    guard case .timeout = error else { throw error }
  }

  @Test func `a server that closes the socket is gone`() throws {
    let error = try error(at: .regionInfo) { _ in FakeServer.Reply(ends: true) }
    guard case .gone = error else { throw error }
  }

  @Test func `a server that closes the socket in a message misbehaves`() throws {
    let error = try error(at: .regionInfo) { reply in
      FakeServer.Reply(bytes: Array(reply.bytes.dropLast()), ends: true)
    }
    guard case .misbehaved = error else { throw error }
  }

  @Test(arguments: [0, 2, 8])
  func `a reply to another command misbehaves`(place: Int) throws {
    let error = try error(at: .deviceInfo) { reply in
      var wrong = reply
      wrong.bytes[place] ^= 2
      return wrong
    }
    guard case .misbehaved = error else { throw error }
  }

  @Test(arguments: [0, 15, UInt32(Message.maxSize) + 1, .max])
  func `a reply that names a wrong size misbehaves`(size: UInt32) throws {
    let error = try error(at: .deviceInfo) { reply in
      var wrong = reply
      wrong.setWord(4, size)
      return wrong
    }
    guard case .misbehaved = error else { throw error }
  }

  @Test(arguments: [
    Command.version, .deviceInfo, .regionInfo, .regionRead, .irqInfo,
  ])
  func `a reply without its payload misbehaves`(command: Command) throws {
    let error = try error(at: command) { reply in
      var wrong = FakeServer.Reply(bytes: Array(reply.bytes.prefix(16)))
      wrong.setWord(4, 16)
      return wrong
    }
    guard case .misbehaved = error else { throw error }
  }

  @Test func `a refusal says what was refused`() throws {
    let error = try error(at: .mapDMA) { reply in
      var refusal = reply
      refusal.setWord(8, 0x21)
      refusal.setWord(12, UInt32(ENOSPC))
      return refusal
    }
    guard case .system(let tried, ENOSPC, _) = error else { throw error }
    #expect(tried.contains("mapDMA"))
  }

  @Test func `a refusal leaves a connection that works`() throws {
    let server = try FakeServer { message, reply in
      guard message.command == Command.reset.rawValue else { return reply }
      var refusal = reply
      refusal.setWord(8, 0x21)
      refusal.setWord(12, .max)
      return refusal
    }
    let device = try VFIOUserDevice(path: server.path)
    #expect(throws: DeviceError.self) { try device.reset() }
    #expect(try device.readConfig(0, width: 2) == 0x8086)
  }

  @Test func `a device that is not on PCI is refused`() throws {
    let error = try error(at: .deviceInfo) { reply in
      var wrong = reply
      wrong.setWord(20, 1)
      return wrong
    }
    guard case .refused = error else { throw error }
  }

  @Test func `a BAR of impossible size misbehaves`() throws {
    let error = try error(at: .regionInfo) { reply in
      var wrong = reply
      wrong.setWord(16 + 20, .max)
      return wrong
    }
    guard case .misbehaved = error else { throw error }
  }

  /// Offset in the reply to REGION_INFO, and a value that makes no sense there.
  @Test(
    arguments: [
      (12, 31), (12, 0x1000), (12, .max), (40, 17), (48, 1), (48, 0x2000), (48, .max),
      (52, 1), (56, 0x3000), (56, 0), (60, 1), (24, 0x2000), (24, 5), (28, .max),
    ] as [(Int, UInt32)])
  func `shared pages that make no sense misbehave`(offset: Int, value: UInt32) throws {
    let error = try error(at: .regionInfo) { reply in
      var wrong = reply
      wrong.setWord(16 + offset, value)
      return wrong
    }
    switch error {
    case .misbehaved, .system: break
    default: throw error
    }
  }

  @Test func `capabilities that point at each other come to an end`() throws {
    let error = try error(at: .regionInfo) { reply in
      var wrong = reply
      // Not the one that is looked for, and the next one is itself.
      wrong.setWord(16 + 32, 9)
      wrong.setWord(16 + 36, 32)
      return wrong
    }
    guard case .misbehaved = error else { throw error }
  }

  /// A server that shares this file as a region's pages has broken the protocol.
  private func expectMisbehavior(sharing file: Int32) throws {
    let error = try error(at: .regionInfo) { reply in
      var wrong = reply
      wrong.files = [file]
      return wrong
    }
    guard case .misbehaved = error else { throw error }
  }

  @Test func `shared pages that are no file misbehave`() throws {
    let eventFD = makeEventFD()
    try expectMisbehavior(sharing: eventFD.number)
  }

  /// A file on a disk could stall every access, and a huge page is mapped whole.
  @Test(arguments: [false, true])
  func `shared pages that are not ordinary memory misbehave`(areHuge: Bool) throws {
    let huge = IXY_MEMFD_CLOEXEC | IXY_MEMFD_HUGE_2MB
    let file = OpenFile(areHuge ? ixy_memfd("huge", huge) : open("/proc/self/exe", O_RDONLY))
    guard file.number >= 0, !areHuge || ftruncate(file.number, 2 << 20) == 0 else { return }
    try expectMisbehavior(sharing: file.number)
  }

  @Test func `a server that asks for memory itself is refused and answers`() throws {
    let server = try FakeServer { _, reply in
      let question = Message(
        id: 77, command: .readDMA, payload: [UInt8](repeating: 0, count: 16))
      var both = reply
      both.bytes = question.bytes + reply.bytes
      return both
    }
    let device = try VFIOUserDevice(path: server.path)
    #expect(try device.readConfig(0, width: 2) == 0x8086)
    #expect(server.refusals >= 2)
  }

  @Test func `a server that asks without end is a timeout`() throws {
    // As many at once as a socket holds: there is always one more.
    let question = [[UInt8]](
      repeating: Message(id: 77, command: .readDMA, flags: .noReply).bytes, count: 4096
    ).flatMap { $0 }
    let error = try error(at: .regionInfo, timeout: short) { _ in
      FakeServer.Reply(bytes: question, repeats: true)
    }
    switch error {
    case .timeout: break
    default: throw error
    }
  }

  @Test func `after a timeout registers read as all ones at once`() throws {
    let server = try FakeServer { message, reply in
      message.command == Command.regionWrite.rawValue ? FakeServer.Reply() : reply
    }
    let device = try VFIOUserDevice(path: server.path)
    let bar = try device.bar(0)
    #expect(bar.read(0, width: 4) == 0x1234_5678)
    device.server.timeout = .milliseconds(500)
    bar.write(1, to: 8, width: 4)
    let start = ContinuousClock.now
    for _ in 0..<1000 { #expect(bar.read(0, width: 4) == 0xFFFF_FFFF) }
    // Half a second each would be 500.
    #expect(start.duration(to: .now) < .seconds(60))
  }

  @Test func `shared pages that are truncated read as all ones`() throws {
    let file = makeMemory(0x2000)
    let number = file.number
    let server = try FakeServer { message, reply in
      var reply = reply
      if message.command == Command.regionInfo.rawValue { reply.files = [number] }
      return reply
    }
    let bar = try VFIOUserDevice(path: server.path).bar(0)
    ftruncate(number, 0)
    bar.write(1, to: 0x1000, width: 4)
    #expect(bar.read(0x1004, width: 4) == 0xFFFF_FFFF)
  }

  @Test func `a server cannot truncate memory of ours`() throws {
    let server = try FakeServer { _, reply in reply }
    let device = try VFIOUserDevice(path: server.path)
    let domain = DMADomain()
    try device.attach(to: domain)
    let memory = try domain.allocate(4096)
    memory.base.storeBytes(of: 1, as: UInt64.self)
    // What a server could do with the descriptor that it got.
    #expect(ftruncate(memory.block.file.number, 0) == -1)
    #expect(memory.base.load(as: UInt64.self) == 1)
  }

  @Test func `a server with many vectors too many misbehaves`() throws {
    let server = try FakeServer { message, reply in
      var reply = reply
      if message.command == Command.irqInfo.rawValue { reply.setWord(28, .max) }
      return reply
    }
    let device = try VFIOUserDevice(path: server.path)
    #expect(throws: DeviceError.self) { try device.interruptCount(.msix) }
  }

  @Test func `mutated replies never bring the client down`() throws {
    let count = Atomic<UInt64>(0)
    let server = try FakeServer { _, reply in
      var random = SeededRandom(seed: count.add(1, ordering: .relaxed).newValue)
      guard Int.random(in: 0..<8, using: &random) == 0 else { return reply }
      var wrong = reply
      for _ in 0..<Int.random(in: 1...2, using: &random) {
        let place = Int.random(in: 0..<max(1, wrong.bytes.count), using: &random)
        wrong.bytes[place] = UInt8.random(in: 0...255, using: &random)
      }
      switch Int.random(in: 0..<12, using: &random) {
      case 0: wrong.bytes.removeLast(Int.random(in: 0...wrong.bytes.count, using: &random))
      case 1: wrong.files = []
      case 2: wrong.bytes += wrong.bytes
      case 3: wrong.ends = true
      default: break
      }
      return wrong
    }
    var failures = 0
    for _ in 0..<fuzzCount / 100 {
      do { try use(server.path, timeout: .milliseconds(20)) } catch is DeviceError { failures += 1 }
    }
    #expect(failures > fuzzCount / 500)
  }
}

/// A server on a thread of its own that answers as a real one would, but for what a test changes.
final class FakeServer {
  /// What is sent instead of the right reply.
  struct Reply: Sendable {
    var bytes: [UInt8] = []
    var files: [Int32] = []
    /// Microseconds before each byte.
    var pause: UInt32 = 0
    /// Whether the socket is closed afterwards.
    var ends = false
    /// Whether it is sent again and again, until the client goes.
    var repeats = false

    mutating func setWord(_ offset: Int, _ value: UInt32) {
      guard bytes.count >= offset + 4 else { return }
      var word: [UInt8] = []
      word.append(field: value)
      bytes.replaceSubrange(offset..<offset + 4, with: word)
    }
  }

  private let work: FakeServerWork
  private let thread: TestThread

  init(_ change: @escaping @Sendable (Message, Reply) -> Reply) throws {
    let work = try FakeServerWork(change)
    self.work = work
    thread = TestThread { work.run() }
  }

  deinit {
    work.isStopped.store(true, ordering: .relaxed)
    thread.join()
  }

  var path: String { work.path }
  /// The refusals that the client has sent.
  var refusals: Int { work.refusals.load(ordering: .relaxed) }
}

/// What the thread of a `FakeServer` works on: it would keep the server itself alive, and its end away.
private final class FakeServerWork {
  typealias Reply = FakeServer.Reply

  let path = socketPath()
  let refusals = Atomic<Int>(0)
  let isStopped = Atomic<Bool>(false)
  private let change: @Sendable (Message, Reply) -> Reply
  private let listener: ListeningSocket

  init(_ change: @escaping @Sendable (Message, Reply) -> Reply) throws {
    self.change = change
    listener = try ListeningSocket(path: path)
  }

  private var goesOn: Bool { !isStopped.load(ordering: .relaxed) }

  func run() {
    guard let model = try? ToyModel() else { return }
    while goesOn {
      guard let socket = listener.nextClient() else {
        var entry = listener.pollEntry
        poll(&entry, 1, 20)
        continue
      }
      let number = socket.number
      let connection = Connection(socket)
      let session = Session(model: model, sharesPages: true)
      while goesOn, serve(session, connection, number) {}
      _ = session.end()
    }
  }

  /// Answers one message; false when the connection ends.
  private func serve(_ session: Session, _ connection: Connection, _ socket: Int32) -> Bool {
    switch connection.receive() {
    case .closed, .broken: return false
    case .nothing:
      var entry = connection.pollEntry
      poll(&entry, 1, 20)
      return true
    case .message(let message, let files):
      if message.isReply {
        refusals.add(1, ordering: .relaxed)
        return true
      }
      return send(reply(to: message, files, of: session), socket)
    }
  }

  private func reply(to message: Message, _ files: ReceivedFiles, of session: Session) -> Reply {
    do {
      let answer = try session.answer(message, files)
      let bytes = Message(replyTo: message, payload: answer.payload).bytes
      return change(message, Reply(bytes: bytes, files: answer.file.map { [$0] } ?? []))
    } catch {
      return change(message, Reply(bytes: Message(replyTo: message, error: error.errno).bytes))
    }
  }

  private func send(_ reply: Reply, _ socket: Int32) -> Bool {
    let parts = reply.pause > 0 ? reply.bytes.map { [$0] } : [reply.bytes]
    repeat {
      var files = reply.files
      for part in parts where !part.isEmpty {
        usleep(reply.pause)
        var rest = part[...]
        while !rest.isEmpty, goesOn {
          let sent = rest.withUnsafeBytes { bytes in
            ixy_send_fds(socket, bytes.baseAddress, UInt(bytes.count), files, Int32(files.count))
          }
          if sent < 0, errno == EPIPE || errno == ECONNRESET { return false }
          if sent > 0 { (rest, files) = (rest.dropFirst(sent), []) }
        }
      }
    } while reply.repeats && goesOn
    return !reply.ends
  }
}
