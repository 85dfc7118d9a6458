import CIxy
import Emulation
import Glibc
import Ixy

/// Serves an emulated device to other processes over a UNIX socket, one client at a time.
///
/// A client is QEMU's `vfio-user-pci`, our own `VFIOUserDevice`, or anybody: nothing that it sends is
/// trusted. When it goes, its memory and interrupts go with it, the model is reset, and the next client is
/// served. Not thread-safe; the model is called from the thread that calls `poll` or `run`.
public final class VFIOUserServer {
  /// The device that is served.
  public let model: any DeviceModel
  /// Where the socket is, until this object is dropped.
  public let path: String
  /// Called with a sentence when a client comes, goes or breaks the protocol.
  public var onReport: ((String) -> Void)?
  /// Whether a client is connected.
  public var hasClient: Bool { client != nil }

  private struct Client {
    let connection: Connection
    let session: Session
    /// When it should have said VERSION, or the rest of a message, or taken its reply.
    var deadline: ContinuousClock.Instant?
  }

  /// The messages that one `poll` answers, and the time after which it takes no more: the model has its turn.
  private static let (burst, burstTime) = (32, Duration.milliseconds(2))
  /// The reports in one minute, whatever clients come and go: more would only fill somebody's disk.
  private static let maxReports = 20

  private let listener: ListeningSocket
  private let sharesPages: Bool
  /// How long a client may stay in the middle of a message, or say nothing at first.
  var patience: Duration
  private var client: Client?
  /// A client that went may still have the model's pages mapped.
  private var arePagesTaken = false
  private var reports = 0
  private var reportsEnd = ContinuousClock.now

  /// Starts to listen at `path`.
  ///
  /// From here on a page that a client truncates under the device's hands reads as all ones, and ends that client:
  /// SIGBUS is handled for the whole process.
  ///
  /// - Parameters:
  ///   - model: The device; after power-on.
  ///   - path: Where the socket shall be. One that a dead server has left is replaced.
  ///   - sharesPages: Whether clients may map the model's shared pages. Without, each access is a message:
  ///     exact, and slow.
  ///   - patience: How long a client may stay in the middle of a message, or say nothing at first.
  /// - Throws: `DeviceError` when a server is running there, or the path cannot be used.
  public init(
    model: any DeviceModel, path: String, sharesPages: Bool = true,
    patience: Duration = .seconds(15)
  ) throws(DeviceError) {
    self.model = model
    self.patience = patience
    self.path = path
    self.sharesPages = sharesPages
    listener = try ListeningSocket(path: path)
    ixy_survive_truncation()
  }

  deinit { _ = client?.session.end() }

  /// What to wait for before the next `poll`.
  var pollEntry: pollfd {
    var entry = client?.connection.pollEntry ?? listener.pollEntry
    // A client that waits is no reason to look more often for memory.
    if arePagesTaken { entry.events = 0 }
    return entry
  }

  /// Takes in a client, or the messages that its client has sent so far.
  ///
  /// Never blocks.
  ///
  /// - Returns: The number of clients and messages that were taken in.
  public func poll() -> Int { watchingMemory { takeMessages() } }

  /// Lets the model do some work, and ends with a client that truncates memory under its hands.
  ///
  /// - Returns: The number of frames moved; 0 when there was nothing to do.
  public func step() -> Int { watchingMemory { model.step() } }

  private func watchingMemory(_ work: () -> Int) -> Int {
    let count = ixy_truncated_pages()
    let done = work()
    if ixy_truncated_pages() != count { end("it has truncated memory that it has mapped") }
    return done
  }

  private func takeMessages() -> Int {
    if client == nil {
      if arePagesTaken { arePagesTaken = !model.renewSharedPages() }
      guard !arePagesTaken, let socket = listener.nextClient() else { return 0 }
      client = Client(
        connection: Connection(socket), session: Session(model: model, sharesPages: sharesPages),
        deadline: .now + patience)
    }
    var count = 0
    let burstEnd = ContinuousClock.now + Self.burstTime
    while let client {
      guard client.connection.flush() else {
        end("its socket was closed before a reply")
        break
      }
      // A client that does not take a reply sends no more messages.
      if client.connection.isSending { break }
      switch client.connection.receive() {
      case .message(let message, let files): handle(message, files, from: client)
      case .nothing: return count + checkDeadline()
      case .closed: end("")
      case .broken(let reason): end(reason)
      }
      count += 1
      if count == Self.burst || .now >= burstEnd { break }
    }
    return count + checkDeadline()
  }

  private func handle(_ message: Message, _ files: ReceivedFiles, from client: Client) {
    self.client?.deadline = nil
    guard message.isCommand else { return end("a reply to nothing came") }
    let answer: Message
    var file: Int32?
    do {
      let reply = try client.session.answer(message, files)
      if message.command == Command.version.rawValue { report("A client has connected") }
      answer = Message(replyTo: message, payload: reply.payload)
      file = reply.file
    } catch {
      let name = Command(rawValue: message.command).map { "\($0)" } ?? "\(message.command)"
      report("Command \(name) is refused: \(error.reason)")
      answer = Message(replyTo: message, error: error.errno)
    }
    if !message.flags.contains(.noReply) {
      let isSent = client.connection.send(answer, files: file.map { [$0] } ?? [])
      if !isSent { return end("its socket was closed before a reply") }
    }
    if !client.session.isNegotiated { end("it does not speak our version") }
  }

  /// Ends with a client that is in the middle of something for too long.
  ///
  /// - Returns: 1 when it did, as if the end were a message.
  private func checkDeadline() -> Int {
    guard let client else { return 0 }
    let isIdle = !client.connection.isReceiving && !client.connection.isSending
    if isIdle, client.session.isNegotiated {
      self.client?.deadline = nil
      return 0
    }
    guard let deadline = client.deadline else {
      self.client?.deadline = .now + patience
      return 0
    }
    if .now < deadline { return 0 }
    end("it stopped in the middle of a message")
    return 1
  }

  /// Ends with the client, because of `reason` if that is not empty.
  private func end(_ reason: String) {
    guard let client else { return }
    if !reason.isEmpty {
      report("The client is disconnected: \(reason)")
    } else if client.session.isNegotiated {
      report("The client has disconnected")
    }
    arePagesTaken = !client.session.end()
    if arePagesTaken { report("No other is served before the kernel has memory for its registers") }
    self.client = nil
  }

  private func report(_ text: String) {
    if .now >= reportsEnd { (reports, reportsEnd) = (0, ContinuousClock.now + .seconds(60)) }
    reports += 1
    if reports <= Self.maxReports { onReport?("\(path): \(text).") }
    if reports == Self.maxReports { onReport?("\(path): No more is said for a minute.") }
  }
}
