import Glibc
import Ixy

/// Where the bytes of a capture go: room is asked for, filled, and then counts.
class CaptureOutput {
  /// The bytes that are in it.
  fileprivate(set) var length = 0

  /// Room for `count` bytes behind those that are there; what it held before is lost when asked again.
  func reserve(_ count: Int) throws(DeviceError) -> UnsafeMutableRawPointer {
    preconditionFailure("an output without room")
  }

  /// The bytes that were asked for are there.
  func commit(_ count: Int) { length += count }
  /// Whoever reads along sees what is there.
  func flush() throws(DeviceError) {}
  /// Ends it.
  func close() throws(DeviceError) {}
}

/// A file that grows by `fallocate` and is written through a mapping: no system call a frame, and a disk that
/// is full says so when the file grows, never while a frame is written.
@safe final class MappedFile: CaptureOutput {
  let path: String
  private let file: FileDescriptor
  /// A file that was not there before goes again when nothing was begun.
  private let isNew: Bool
  private var rescue: CaptureRescue?
  private var windows: CaptureWindows?
  private var window: CaptureWindows.Window?
  /// Whether there was a window.
  private var isBegun = false
  /// Up to here there is room without a second thought.
  private var limit = 0

  /// Opens a file; what is in it stays until room is asked for.
  ///
  /// - Parameter path: Where it shall be.
  /// - Throws: `DeviceError` when it cannot be written, or is in use as a capture.
  init(path: String) throws(DeviceError) {
    self.path = path
    let advice = "Is the directory there, and may you write to it?"
    let flags = O_RDWR | O_CREAT | O_CLOEXEC
    let created = unsafe open(path, flags | O_EXCL, 0o644)
    isNew = created >= 0
    file = FileDescriptor(owning: isNew ? created : unsafe open(path, flags, 0o644))
    guard file.number >= 0 else { throw .lastError("Write to \(path)", advice: advice) }
    // For a moment the process that cuts a killed capture may still have it.
    let deadline = ContinuousClock.now + .seconds(2)
    while flock(file.number, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK {
      if ContinuousClock.now > deadline {
        throw .refused(
          "Write to \(path)", found: "a card or a capture is using it",
          advice: "Give another file.")
      }
      usleep(10_000)
    }
    super.init()
  }

  deinit { finish() }

  override func reserve(_ count: Int) throws(DeviceError) -> UnsafeMutableRawPointer {
    if length + count > limit { try moveWindow(for: count) }
    guard let window else { throw .lastError("Write to \(path)") }
    return unsafe window.base + (length - window.start)
  }

  override func commit(_ count: Int) {
    length += count
    rescue?.length = length
  }

  /// Cuts off what was only allocated.
  override func close() throws(DeviceError) {
    guard finish() else { throw .lastError("End \(path)", advice: "Is the disk full?") }
  }

  private func moveWindow(for count: Int) throws(DeviceError) {
    let windows: CaptureWindows = if let begun = self.windows { begun } else { try begin() }
    if let window, length + count <= window.end {
      // A capture that gets so far goes on: the first quarter of the first window was enough for others.
      windows.start()
      limit = window.end
      return
    }
    while window.map({ length + count > $0.end }) ?? true {
      let old = window
      // From here on it is not ours.
      (window, limit) = (nil, 0)
      let next = try windows.next(after: old)
      limit = isBegun ? next.end : next.length / 4
      window = next
      isBegun = true
    }
    // A disk that was full for a moment leaves a gap.
    if let window, window.start > length {
      throw .system("Write to \(path)", errno: ENOSPC, advice: "Is the disk full?")
    }
  }

  private func begin() throws(DeviceError) -> CaptureWindows {
    guard ftruncate(file.number, 0) == 0 else { throw .lastError("Write to \(path)") }
    rescue = CaptureRescue(file: file.number)
    let windows = CaptureWindows(file: file.number, path: path)
    self.windows = windows
    return windows
  }

  @discardableResult private func finish() -> Bool {
    windows?.end(window)
    (window, limit) = (nil, 0)
    let isCut = windows == nil || ftruncate(file.number, length) == 0
    if !isBegun, isNew { unsafe unlink(path) }
    rescue?.end()
    // Closing alone does not unlock while a child that is just being started has the file, too.
    flock(file.number, LOCK_UN)
    return isCut
  }
}

/// A pipe, or anything else that takes bytes one after the other.
@safe final class StreamOutput: CaptureOutput {
  private static let size = 2 * CaptureFormat.longestFrame
  private let file: FileDescriptor
  private let path: String
  private let buffer = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
  private var used = 0

  /// Writes to an open file.
  init(_ file: consuming FileDescriptor, path: String) {
    self.file = file
    self.path = path
  }

  deinit { unsafe buffer.deallocate() }

  override func reserve(_ count: Int) throws(DeviceError) -> UnsafeMutableRawPointer {
    if used + count > Self.size { try flush() }
    return unsafe buffer + used
  }

  override func commit(_ count: Int) {
    used += count
    length += count
  }

  override func flush() throws(DeviceError) {
    var done = 0
    defer { used = 0 }
    while done < used {
      let written = unsafe write(file.number, buffer + done, used - done)
      if written < 0, errno == EINTR { continue }
      // Nobody reads any more: that is a wish to end.
      if written < 0, errno == EPIPE { return StopSignal.raise() }
      if written < 0 { throw .lastError("Write to \(path)", advice: "Is the disk full?") }
      done += written
    }
  }

  override func close() throws(DeviceError) { try flush() }
}
