import Glibc
import Ixy
import Synchronization

/// The way to a server: commands and their replies, one at a time, from any thread.
///
/// The server is trusted as little as a client is. When it is silent, lies or goes, the connection is closed,
/// and every later command fails with the same error.
final class ServerConnection {
  /// How messages name the device.
  let name: String
  /// The longest wait for a reply; whoever changes it is the only one with the connection.
  var timeout: Duration
  private let lock = Mutex(())
  /// nil after a failure.
  private var connection: Connection?
  private var failure: DeviceError
  private var lastID: UInt16 = 0

  init(_ socket: consuming FileDescriptor, name: String, timeout: Duration) {
    connection = Connection(socket)
    self.name = name
    self.timeout = timeout
    failure = .gone(device: name)
  }

  /// Sends a command and waits for its reply.
  ///
  /// - Returns: The reply's payload and descriptors.
  /// - Throws: `DeviceError.system` when the server refuses the command; the other cases end the connection.
  func call(_ command: Command, _ payload: [UInt8] = [], files: [Int32] = []) throws(DeviceError)
    -> (payload: [UInt8], files: ReceivedFiles)
  {
    var result: Result<(payload: [UInt8], files: ReceivedFiles), DeviceError>?
    lock.withLock { _ in
      result = Result { () throws(DeviceError) in
        let deadline = ContinuousClock.now + timeout
        let message = try send(command, payload, files, until: deadline)
        return try reply(to: message, until: deadline)
      }
    }
    guard let result else { fatalError("the closure was called") }
    return try result.get()
  }

  /// Sends a command that gets no reply.
  func post(_ command: Command, _ payload: [UInt8]) throws(DeviceError) {
    var result = Result<Void, DeviceError>.success(())
    lock.withLock { _ in
      result = Result { () throws(DeviceError) in
        _ = try send(command, payload, flags: .noReply, [], until: .now + timeout)
      }
    }
    try result.get()
  }

  private func send(
    _ command: Command, _ payload: [UInt8], flags: Message.Flags = [], _ files: [Int32],
    until deadline: ContinuousClock.Instant
  ) throws(DeviceError) -> Message {
    lastID &+= 1
    let message = Message(id: lastID, command: command, flags: flags, payload: payload)
    try send(message, files, until: deadline)
    return message
  }

  private func send(
    _ message: Message, _ files: [Int32], until deadline: ContinuousClock.Instant
  ) throws(DeviceError) {
    guard let connection else { throw failure }
    var isThere = connection.send(message, files: files)
    while isThere, connection.isSending {
      try wait(for: "the server to take a message", until: deadline)
      isThere = connection.flush()
    }
    if !isThere { throw fail(.gone(device: name)) }
  }

  private func reply(to command: Message, until deadline: ContinuousClock.Instant)
    throws(DeviceError) -> (payload: [UInt8], files: ReceivedFiles)
  {
    // Spelled out only when it is missing: every register access comes here.
    func wanted() -> String {
      "the server's reply to \(Command(rawValue: command.command).map { "\($0)" } ?? "a command")"
    }
    while let connection {
      switch connection.receive() {
      case .message(let message, let files):
        if message.isCommand {
          // More of them may be there already, without end.
          try checkTime(for: wanted(), until: deadline)
          try refuse(message, until: deadline)
          continue
        }
        guard message.isReply, message.id == command.id, message.command == command.command else {
          throw fail(.misbehaved(device: name, "the server answered what nobody had asked"))
        }
        if message.flags.contains(.error) { throw refusal(of: command, message.error) }
        return (message.payload, files)
      case .nothing:
        try wait(for: wanted(), until: deadline)
      case .closed: throw fail(.gone(device: name))
      case .broken(let reason):
        throw fail(.misbehaved(device: name, "the server sent \(reason)"))
      }
    }
    throw failure
  }

  /// Answers a command of the server's.
  ///
  /// It could ask for memory, but has all of ours mapped.
  private func refuse(_ message: Message, until deadline: ContinuousClock.Instant)
    throws(DeviceError)
  {
    if message.flags.contains(.noReply) { return }
    try send(Message(replyTo: message, error: ENOTSUP), [], until: deadline)
  }

  private func refusal(of command: Message, _ code: UInt32) -> DeviceError {
    let what = Command(rawValue: command.command).map { "\($0)" } ?? "\(command.command)"
    return .system(
      "Ask the server of \(name) for \(what)", errno: Int32(truncatingIfNeeded: code),
      advice: "Its own messages say more.")
  }

  private func wait(for event: @autoclosure () -> String, until deadline: ContinuousClock.Instant)
    throws(DeviceError)
  {
    guard var entry = connection?.pollEntry else { throw failure }
    let left = try checkTime(for: event(), until: deadline)
    let milliseconds = min(left / .milliseconds(1), 1000)
    _ = unsafe poll(&entry, 1, Int32(milliseconds) + 1)
  }

  /// The time that is left until `deadline`.
  @discardableResult
  private func checkTime(
    for event: @autoclosure () -> String, until deadline: ContinuousClock.Instant
  )
    throws(DeviceError) -> Duration
  {
    let left = ContinuousClock.now.duration(to: deadline)
    if left <= .zero { throw fail(.timeout(device: name, waitingFor: event(), limit: timeout)) }
    return left
  }

  /// The connection is of no use any more: a late reply would be taken for the next command's.
  private func fail(_ error: DeviceError) -> DeviceError {
    connection = nil
    failure = error
    return error
  }
}
