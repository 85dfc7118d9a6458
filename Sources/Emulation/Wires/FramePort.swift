import Glibc
import Ixy

/// Frames in and out of a file descriptor that gives and takes one at a time and never blocks.
@safe final class FramePort {
  // SAFETY: both buffers are longer than the longest frame, and a longer one is dropped; `length`
  // and `pendingLength` are what is in them.
  /// A descriptor's frames may be this long, and one more would show that it was longer.
  private static let bufferSize = 1 << 17

  let file: FileDescriptor
  /// The system call that sends a frame; -1 and errno when it cannot.
  private let transmit: (Int32, UnsafeRawBufferPointer) -> Int
  private let incoming = UnsafeMutableRawBufferPointer.allocate(
    byteCount: bufferSize, alignment: 64)
  private let outgoing = UnsafeMutableRawBufferPointer.allocate(
    byteCount: bufferSize, alignment: 64)
  /// The length of the frame in `incoming`; 0 when there is none.
  private var length = 0
  /// The length of the frame in `outgoing` that the other end had no room for; 0 when there is none.
  private var pendingLength = 0
  /// Whether the card receives.
  var isOn = false
  /// What the last system call said, other than that it has nothing or no room; 0 when all is well.
  private(set) var problem: Int32 = 0
  private(set) var counts = WireCounts()

  init(
    _ file: consuming FileDescriptor,
    transmit: @escaping (Int32, UnsafeRawBufferPointer) -> Int
  ) {
    self.file = file
    unsafe self.transmit = unsafe transmit
  }

  deinit {
    unsafe incoming.deallocate()
    unsafe outgoing.deallocate()
  }

  /// Whether the last frame has gone; sends it if there is room now.
  var canSend: Bool {
    if pendingLength > 0 {
      let frame = unsafe UnsafeRawBufferPointer(rebasing: outgoing[..<pendingLength])
      if unsafe put(frame) { pendingLength = 0 }
    }
    return pendingLength == 0
  }

  /// Sends a frame, padded; keeps it when there is no room, and drops it when it cannot go.
  func send(_ frame: UnsafeRawBufferPointer) {
    counts.received += 1
    guard canSend, (FrameSize.header..<Self.bufferSize).contains(frame.count) else {
      counts.dropped += 1
      return
    }
    if frame.count >= FrameSize.minimum, unsafe put(frame) { return }
    unsafe outgoing.copyMemory(from: frame)
    pendingLength = unsafe Self.pad(outgoing, from: frame.count)
    _ = canSend
  }

  /// The next frame, padded; nil when there is none.
  func nextFrame() -> UnsafeRawBufferPointer? {
    if length == 0, isOn { receive() }
    return length == 0 ? nil : unsafe UnsafeRawBufferPointer(rebasing: incoming[..<length])
  }

  /// Takes that frame away.
  func takeFrame() {
    precondition(length > 0, "no frame was given")
    length = 0
    counts.sent += 1
  }

  private func receive() {
    while true {
      let found = unsafe read(file.number, incoming.baseAddress, Self.bufferSize)
      if found < 0 {
        if errno == EINTR { continue }
        if errno != EAGAIN { problem = errno }
        return
      }
      // What fills the buffer may have been longer; what is shorter than a header is no frame.
      if found < FrameSize.header || found == Self.bufferSize {
        counts.dropped += 1
        continue
      }
      length = unsafe Self.pad(incoming, from: found)
      return
    }
  }

  /// Tries to send; false when the frame shall be tried again.
  private func put(_ frame: UnsafeRawBufferPointer) -> Bool {
    while unsafe transmit(file.number, frame) < 0 {
      switch errno {
      case EINTR: continue
      case EAGAIN, ENOBUFS, ENOMEM: return false
      default:
        problem = errno
        counts.dropped += 1
        return true
      }
    }
    problem = 0
    return true
  }

  /// Fills up with zeros to the least that a wire carries, and returns the length.
  private static func pad(_ frame: UnsafeMutableRawBufferPointer, from end: Int) -> Int {
    if end >= FrameSize.minimum { return end }
    for i in end..<FrameSize.minimum { unsafe frame[i] = 0 }
    return FrameSize.minimum
  }
}
