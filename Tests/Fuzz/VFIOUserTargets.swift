import CIxy
import Emulation
import Glibc
import Ixy
import Synchronization

@testable import VFIOUser

/// The vfio-user server with a hostile client, and the client with a hostile server.
enum VFIOUserTargets {
  private static let path = "/tmp/ixy-fuzz-\(getpid())"

  /// A command: mostly one that could be, with one or more fields wrong.
  private static func message(_ choices: Choices) -> [UInt8] {
    let known: [(Command, [Int])] = [
      (.version, [2, 2, 8]), (.mapDMA, [4, 4, 8, 8, 8]), (.unmapDMA, [4, 4, 8, 8]),
      (.deviceInfo, [4, 4, 4, 4]), (.regionInfo, [4, 4, 4, 4, 8, 8]), (.irqInfo, [4, 4, 4, 4]),
      (.setIRQs, [4, 4, 4, 4, 4]), (.regionRead, [8, 4, 4]), (.regionWrite, [8, 4, 4, 4]),
      (.reset, []), (.dirtyPages, [4, 4]), (.regionWriteMulti, [8]), (.deviceFeature, [4, 4]),
    ]
    let (command, widths) = choices.pick(known)
    var payload: [UInt8] = []
    for width in widths {
      let size = UInt64(widths.reduce(0, +))
      let value: UInt64 =
        switch choices.byte() {
        case 0..<100: choices.pick([0, 1, 2, 3, 4, 8, 0x1000, 0x2000, 0x20_0000, size])
        case 100..<140: UInt64(choices.byte())
        default: choices.field()
        }
      payload.append(number: value, width: width)
    }
    if choices.isOdd(16) { payload = Array(payload.prefix(choices.below(payload.count + 1))) }
    if choices.isOdd(16) {
      payload += [UInt8](repeating: choices.byte(), count: choices.below(300))
    }
    var bytes = Message(id: UInt16(choices.byte()), command: command, payload: payload).bytes
    switch choices.byte() {
    case 0..<8: bytes[2] = choices.byte()
    case 8..<12: bytes[8] = choices.byte()
    case 12..<16: bytes[4 + choices.below(4)] = choices.byte()
    case 16..<20: bytes[choices.below(bytes.count)] ^= 1 << (choices.byte() % 8)
    default: break
    }
    return bytes
  }

  private static func goodVersion() -> [UInt8] {
    Message(id: 1, command: .version, payload: Version.payload(json: Capabilities.ours.json)).bytes
  }

  // MARK: - The server

  static func server(_ choices: Choices) throws -> Int {
    let model = try NIC82599(
      wire: LoopWire(), mac: MACAddress(bits: 0x02_00_00_00_00_01), family: .i82599)
    let server = try VFIOUserServer(model: model, path: path)
    let memory = FileDescriptor(owning: ixy_memfd("fuzz", IXY_MEMFD_CLOEXEC))
    ftruncate(memory.number, 1 << 20)
    let event = FileDescriptor(owning: eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)))
    var sent = 0
    while !choices.isAtEnd {
      let client = try HostileClient(server)
      if !choices.isOdd(16) { client.send(goodVersion(), []) }
      while !choices.isAtEnd, server.hasClient, !choices.isOdd(2) {
        let file = choices.isOdd(128) ? memory.number : event.number
        let count = choices.isOdd(64) ? choices.pick([1, 1, 1, 2, 16]) : 0
        client.send(message(choices), [Int32](repeating: file, count: count))
        _ = server.step()
        sent += 1
      }
    }
    // It serves the next client, whatever this one did.
    while server.poll() > 0 {}
    precondition(!server.hasClient, "a client that is gone is still there")
    precondition(model.dma.count == 0, "memory of a client that is gone is still mapped")
    let client = try HostileClient(server)
    let version = client.send(goodVersion(), [])
    let info = client.send(
      Message(id: 2, command: .deviceInfo, payload: [UInt8](words: 16, 0, 0, 0)).bytes, [])
    precondition(version.count > 16 && info.count == 32, "the next client is not served")
    return sent
  }

  /// A client that sends what it likes, in the thread of its server.
  private final class HostileClient {
    private let socket: FileDescriptor
    private let server: VFIOUserServer
    private var room = [UInt8](repeating: 0, count: 65536)

    init(_ server: VFIOUserServer) throws {
      self.server = server
      while server.poll() > 0 {}
      socket = FileDescriptor(owning: try connectSocket(to: server.path).get())
      _ = server.poll()
    }

    /// Sends, lets the server work, and takes what it says.
    @discardableResult
    func send(_ bytes: [UInt8], _ files: [Int32]) -> [UInt8] {
      _ = bytes.withUnsafeBytes {
        ixy_send_fds(socket.number, $0.baseAddress, UInt($0.count), files, Int32(files.count))
      }
      _ = server.poll()
      var result: [UInt8] = []
      while true {
        var numbers = [Int32](repeating: -1, count: 16)
        var count: Int32 = 16
        let size = ixy_receive_fds(
          socket.number, &room, UInt(room.count), &numbers, &count, Int32(MSG_DONTWAIT))
        for number in numbers.prefix(Int(max(0, count))) { close(number) }
        if size <= 0 { return result }
        result += room.prefix(size)
      }
    }
  }

  // MARK: - The client

  static func client(_ choices: Choices) throws -> Int {
    let server = try HostileServer(path, choices)
    for _ in 0..<4 where !server.isDone { try? use(path) }
    return server.finish()
  }

  /// Uses a device in every way that there is, as long as it answers.
  private static func use(_ path: String) throws {
    let device = try VFIOUserDevice(path: path, timeout: .milliseconds(20))
    _ = try? device.identity()
    let domain = DMADomain()
    try device.attach(to: domain)
    let memory = try domain.allocate(4096)
    let event = FileDescriptor(owning: eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)))
    for kind: InterruptKind in [.intx, .msi, .msix] {
      _ = try? device.interruptCount(kind)
      try? device.setInterrupts(kind, eventFDs: [event.number])
    }
    for index in 0..<6 {
      guard let bar = try? device.bar(index) else { continue }
      for offset in [0, 8, 0x1018, 0x2000, bar.size - 8] where offset >= 0 && offset + 8 <= bar.size
      {
        bar.write(memory.iova, to: offset, width: 8)
        _ = bar.read(offset, width: 4)
      }
    }
    try? device.setInterrupts(.msix, eventFDs: [])
    try device.reset()
  }
}

/// A server on a thread of its own: replies of a real one, as far as its choices leave them alone.
private final class HostileServer: @unchecked Sendable {
  private let listener: ListeningSocket
  private let choices: Choices
  private let isStopped = Atomic(false)
  private let count = Atomic(0)
  private var thread = pthread_t()

  init(_ path: String, _ choices: Choices) throws {
    listener = try ListeningSocket(path: path)
    self.choices = choices
    pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<HostileServer>.fromOpaque(argument).takeUnretainedValue().run()
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  var isDone: Bool { isStopped.load(ordering: .relaxed) }

  /// Waits for its end, and says how many replies it has spoiled.
  func finish() -> Int {
    isStopped.store(true, ordering: .relaxed)
    pthread_join(thread, nil)
    return count.load(ordering: .relaxed)
  }

  private func run() {
    guard
      let model = try? NIC82599(
        wire: LoopWire(), mac: MACAddress(bits: 0x02_00_00_00_00_01), family: .i82599)
    else { return }
    while !isDone {
      guard let socket = listener.nextClient() else {
        var entry = listener.pollEntry
        poll(&entry, 1, 1)
        continue
      }
      let number = socket.number
      let connection = Connection(socket)
      let session = Session(model: model, sharesPages: !choices.isOdd(32))
      while serve(connection, session, number) {}
      _ = session.end()
      if choices.isAtEnd { isStopped.store(true, ordering: .relaxed) }
    }
  }

  private func serve(_ connection: Connection, _ session: Session, _ socket: Int32) -> Bool {
    switch connection.receive() {
    case .closed, .broken: return false
    case .nothing:
      var entry = connection.pollEntry
      poll(&entry, 1, 5)
      return !isDone
    case .message(let message, let files):
      if message.isReply || message.flags.contains(.noReply) { return true }
      let answer = try? session.answer(message, files)
      var reply = Message(
        replyTo: message, payload: answer?.payload ?? [], error: answer == nil ? EINVAL : nil
      ).bytes
      var file = answer?.file
      guard spoil(&reply, &file) else { return false }
      _ = reply.withUnsafeBytes { bytes in
        ixy_send_fds(
          socket, bytes.baseAddress, UInt(bytes.count), file.map { [$0] } ?? [], file == nil ? 0 : 1
        )
      }
      return true
    }
  }

  /// Changes a reply, or not; false when the connection ends instead.
  private func spoil(_ reply: inout [UInt8], _ file: inout Int32?) -> Bool {
    count.add(1, ordering: .relaxed)
    switch choices.byte() {
    case 200..<230:
      // A 32-bit field of the payload.
      guard reply.count >= 20 else { return true }
      let place = 16 + 4 * choices.below((reply.count - 16) / 4)
      var word: [UInt8] = []
      word.append(field: UInt32(truncatingIfNeeded: choices.field()))
      reply.replaceSubrange(place..<place + 4, with: word)
    case 230..<240: reply[choices.below(reply.count)] ^= 1 << (choices.byte() % 8)
    case 240..<244: reply.removeLast(choices.below(reply.count))
    case 244..<248: reply += reply
    case 248: file = 0
    case 249: file = nil
    case 250: reply = []
    case 251: return false
    case 252...:
      let question = Message(id: 9, command: .readDMA, payload: [UInt8](repeating: 0, count: 16))
      reply = question.bytes + reply
    default: break
    }
    return true
  }
}
