import CIxy
import Glibc
import Ixy

/// Descriptors that came with a message: whoever takes one owns it, the others are closed.
final class ReceivedFiles {
  private var numbers: [Int32]

  init(_ numbers: [Int32]) { self.numbers = numbers }

  deinit { for number in numbers { close(number) } }

  var count: Int { numbers.count }

  func takeFirst() -> FileDescriptor? {
    numbers.isEmpty ? nil : FileDescriptor(owning: numbers.removeFirst())
  }
}

/// One end of a UNIX stream socket, cut into messages.
///
/// It never blocks.
///
/// It reads exactly one header, then exactly one payload: a descriptor therefore belongs to the message
/// with whose bytes it arrived, whatever the other end does.
final class Connection {
  /// What `receive` found.
  enum Arrival {
    case message(Message, ReceivedFiles)
    /// Nothing, or only a part of a message.
    case nothing
    /// The other end has closed its socket.
    case closed
    /// What came cannot be cut into messages any more.
    case broken(String)
  }

  private let socket: FileDescriptor
  /// The message that is arriving: its bytes and descriptors so far.
  private var incoming = [UInt8](repeating: 0, count: Message.headerSize)
  private var received = 0
  private var files: [Int32] = []
  /// The message that is leaving, as far as the socket has not taken it.
  private var outgoing: ArraySlice<UInt8> = []
  private var outgoingFiles: [Int32] = []

  /// Takes over a connected socket.
  init(_ socket: consuming FileDescriptor) {
    _ = fcntl(socket.number, F_SETFL, fcntl(socket.number, F_GETFL) | O_NONBLOCK)
    self.socket = socket
  }

  deinit { for file in files { close(file) } }

  /// What to wait for: room for the rest of a message that is leaving, else the next one.
  var pollEntry: pollfd {
    pollfd(fd: socket.number, events: Int16(isSending ? POLLOUT : POLLIN), revents: 0)
  }

  /// Whether a part of a message is still here.
  var isSending: Bool { !outgoing.isEmpty }

  /// Whether a part of a message has come.
  var isReceiving: Bool { received > 0 }

  /// The next message, if all of it is there.
  func receive() -> Arrival {
    while true {
      let wanted = received < Message.headerSize ? Message.headerSize : incoming.count
      if received < wanted {
        if let end = receiveBytes(upTo: wanted) { return end }
        continue
      }
      let size = Message.size(inHeader: incoming)
      guard size >= Message.headerSize, size <= Message.maxSize else {
        return .broken("a header that names \(size) bytes")
      }
      if received == size { return takeMessage() }
      incoming += [UInt8](repeating: 0, count: size - incoming.count)
    }
  }

  /// Reads into `incoming`; nil when something came, else what `receive` returns.
  private func receiveBytes(upTo end: Int) -> Arrival? {
    var numbers = [Int32](repeating: -1, count: Message.maxFiles)
    var count = Int32(numbers.count)
    let (socket, start) = (socket.number, received)
    // SAFETY: `incoming` has room up to `end`, and `count` is the room in `numbers`.
    let size = unsafe incoming.withUnsafeMutableBytes { bytes in
      unsafe ixy_receive_fds(
        socket, bytes.baseAddress.map { unsafe $0 + start }, UInt(end - start), &numbers, &count, 0)
    }
    let code = errno
    files += numbers.prefix(Int(count))
    if size == -2 || files.count > Message.maxFiles {
      // The kernel says no more than that some are missing.
      return .broken(
        "more than \(Message.maxFiles) descriptors with one message, or than this process may open")
    }
    if size > 0 {
      received += size
      return nil
    }
    if size < 0, code == EAGAIN || code == EINTR { return .nothing }
    return received == 0 && files.isEmpty ? .closed : .broken("the end in the middle of a message")
  }

  private func takeMessage() -> Arrival {
    guard let message = try? Message(bytes: incoming[...]) else { return .broken("no header") }
    let arrived = ReceivedFiles(files)
    files = []
    received = 0
    incoming.removeLast(incoming.count - Message.headerSize)
    return .message(message, arrived)
  }

  /// Starts to send a message; what the socket does not take at once, `flush` sends.
  ///
  /// - Parameters:
  ///   - message: What to send; the one before must have left.
  ///   - files: Descriptors to go with it; they stay the caller's, who keeps them open until it has left.
  /// - Returns: False when the other end is gone.
  func send(_ message: Message, files: [Int32] = []) -> Bool {
    precondition(!isSending && files.count <= Message.maxFiles)
    outgoing = message.bytes[...]
    outgoingFiles = files
    return flush()
  }

  /// Sends more of the message that is leaving; false when the other end is gone.
  func flush() -> Bool {
    while !outgoing.isEmpty {
      // SAFETY: the bytes and descriptors are borrowed for the call only.
      let sent = unsafe outgoing.withUnsafeBytes { bytes in
        unsafe ixy_send_fds(
          socket.number, bytes.baseAddress, UInt(bytes.count), outgoingFiles,
          Int32(outgoingFiles.count))
      }
      if sent < 0 { return errno == EAGAIN || errno == EINTR }
      outgoing = outgoing.dropFirst(sent)
      outgoingFiles = []
    }
    return true
  }
}
