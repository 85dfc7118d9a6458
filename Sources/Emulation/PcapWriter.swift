import Glibc
import Ixy

/// Writes frames into a pcap file, with times in nanoseconds.
///
/// The file is valid whenever `flush` returns. A write that fails ends it after the last whole frame; what
/// comes later is counted as lost, and `close` throws.
@safe public final class PcapWriter {
  // SAFETY: `used` never passes the size of `buffer`: what does not fit is written out first, and a
  // frame is cut to `snapLength`.
  /// The file that is written.
  public let path: String
  /// The frames in the file, or in the buffer on their way.
  public private(set) var count: UInt64 = 0
  /// The frames that could not be written.
  public private(set) var lost: UInt64 = 0
  /// Why writing ended before its time; nil while all is well.
  public private(set) var failure: DeviceError?

  private let file: FileDescriptor
  private let snapLength: Int
  private static let bufferSize = 2 * PcapFormat.maximumLength
  private let buffer = UnsafeMutableRawPointer.allocate(byteCount: bufferSize, alignment: 16)
  private var used = 0
  /// The frames in the buffer.
  private var waiting: UInt64 = 0
  /// Where the file ends that has been written so far.
  private var length = 0
  /// A file that was not there before goes again when nothing was begun.
  private let isNew: Bool
  private var isBegun = false

  /// Opens a file, or standard output for "-"; what is in it stays until `begin`.
  ///
  /// - Parameters:
  ///   - path: Where to write.
  ///   - snapLength: How much of a frame is kept, at most.
  /// - Throws: `DeviceError` when it cannot be opened, or is being read or written as another capture.
  public init(path: String, snapLength: Int = 262_144) throws(DeviceError) {
    precondition((1...PcapFormat.maximumLength).contains(snapLength))
    self.path = path
    self.snapLength = snapLength
    let tried = "Write to \(path)"
    if path == "-" {
      isNew = false
      file = FileDescriptor(owning: dup(STDOUT_FILENO))
    } else {
      let flags = O_WRONLY | O_CREAT | O_CLOEXEC
      let created = unsafe open(path, flags | O_EXCL, 0o644)
      isNew = created >= 0
      file = FileDescriptor(owning: isNew ? created : unsafe open(path, flags, 0o644))
    }
    guard file.number >= 0 else {
      throw .lastError(tried, advice: "Is the directory there, and may you write to it?")
    }
    // A capture must not be written over while it is being read, or by two cards at once.
    if isRegular, flock(file.number, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK {
      throw .refused(tried, found: "a card or a capture is using it", advice: "Give another file.")
    }
  }

  deinit {
    if isNew, !isBegun { unsafe unlink(path) } else { flush() }
    unlock()
    unsafe buffer.deallocate()
  }

  /// Closing alone does not unlock while a child that is just being started has the file, too.
  private func unlock() { flock(file.number, LOCK_UN) }

  private var isRegular: Bool {
    var status = stat()
    return unsafe fstat(file.number, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
  }

  /// Empties the file and writes the header; the first frame does it, too.
  public func begin() {
    if isBegun { return }
    isBegun = true
    if isRegular, ftruncate(file.number, 0) != 0 { fail(written: 0) }
    let version: UInt32 = 2 | 4 << 16
    let words = [
      PcapFormat.nanoseconds, version, 0, 0, UInt32(snapLength), PcapFormat.ethernet,
    ]
    for word in words { put(word) }
    // At once: from here on the file is a capture, whatever happens to this process.
    flush()
  }

  /// Adds a frame, or as much of it as is kept.
  ///
  /// - Parameters:
  ///   - frame: Its bytes.
  ///   - time: Nanoseconds since 1970; read the clock once for a batch.
  public func append(_ frame: UnsafeRawBufferPointer, at time: UInt64) {
    begin()
    let kept = min(frame.count, snapLength)
    if used + PcapFormat.recordSize + kept > Self.bufferSize { flush() }
    guard failure == nil, let source = frame.baseAddress else {
      lost += 1
      return
    }
    put(UInt32(truncatingIfNeeded: time / 1_000_000_000))
    put(UInt32(time % 1_000_000_000))
    put(UInt32(kept))
    put(UInt32(truncatingIfNeeded: frame.count))
    unsafe (buffer + used).copyMemory(from: source, byteCount: kept)
    used += kept
    count += 1
    waiting += 1
  }

  /// Writes out what is buffered.
  public func flush() {
    var done = 0
    while done < used, failure == nil {
      let written = unsafe write(file.number, buffer + done, used - done)
      if written < 0, errno == EINTR { continue }
      if written < 0 { fail(written: done) } else { done += written }
    }
    length += used
    used = 0
    waiting = 0
  }

  /// Writes out what is buffered, and says whether everything arrived.
  ///
  /// - Throws: `DeviceError` when a write has failed, with the frames that are in the file and are not.
  public func close() throws(DeviceError) {
    begin()
    flush()
    unlock()
    guard let failure else { return }
    throw .refused(
      "Write the capture", found: "\(failure) \(count) frames are in \(path), \(lost) are not",
      advice: "")
  }

  /// Keeps the error of the last system call, and cuts the file after the last frame that is whole.
  private func fail(written: Int) {
    failure = .lastError("Write to \(path)", advice: "Is the disk full?")
    var whole = length == 0 ? PcapFormat.headerSize : 0
    if written < whole { whole = 0 }
    while waiting > 0, whole + PcapFormat.recordSize <= written {
      let kept = unsafe buffer.loadUnaligned(fromByteOffset: whole + 8, as: UInt32.self)
      let end = whole + PcapFormat.recordSize + Int(kept)
      if end > written { break }
      whole = end
      waiting -= 1
    }
    count -= waiting
    lost += waiting
    waiting = 0
    if isRegular { ftruncate(file.number, length + whole) }
  }

  private func put(_ word: UInt32) {
    unsafe buffer.storeBytes(of: word, toByteOffset: used, as: UInt32.self)
    used += 4
  }
}
