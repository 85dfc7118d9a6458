import Ixy

/// Frames under way in one direction, first in and first out, in memory that is allocated once.
///
/// One thread uses both ends. Frames lie one after the other, each behind its length; a length of 0 says
/// that the next one is at the start again.
@safe final class FrameRing {
  /// Room for a hundred full frames or some thousand short ones: they stay in the processor's cache.
  private static let size = 256 << 10
  private static let prefix = 8
  /// What the longest frame takes.
  private static let longest = FrameSize.maximum + prefix

  private let base = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
  /// Where the oldest frame is; equal to `tail` when there is none.
  private var head = 0
  private var tail = 0

  deinit { unsafe base.deallocate() }

  /// Whether there is room for one more frame of any length.
  var hasRoom: Bool {
    // A frame never crosses the end, so that the room there may be lost; head and tail never meet.
    tail >= head
      ? tail + Self.longest + Self.prefix <= Self.size || head > Self.longest
      : head - tail > Self.longest
  }

  /// Adds a frame, padded to the least that a wire carries; false when it is no frame or has no room.
  func push(_ frame: UnsafeRawBufferPointer) -> Bool {
    guard (FrameSize.header...FrameSize.maximum).contains(frame.count), hasRoom,
      let source = frame.baseAddress
    else { return false }
    if tail >= head, tail + Self.longest + Self.prefix > Self.size {
      unsafe base.storeBytes(of: 0, toByteOffset: tail, as: Int.self)
      tail = 0
    }
    let padded = max(frame.count, FrameSize.minimum)
    // SAFETY: `hasRoom` has found room for the longest frame at `tail`, which is a multiple of 8.
    unsafe base.storeBytes(of: padded, toByteOffset: tail, as: Int.self)
    let target = unsafe base + tail + Self.prefix
    unsafe target.copyMemory(from: source, byteCount: frame.count)
    if padded > frame.count {
      unsafe (target + frame.count).initializeMemory(
        as: UInt8.self, repeating: 0, count: padded - frame.count)
    }
    tail += Self.prefix + (padded + 7) & ~7
    return true
  }

  /// The oldest frame, valid until `pop`; nil when there is none.
  var first: UnsafeRawBufferPointer? {
    if head == tail { return nil }
    var length = unsafe base.load(fromByteOffset: head, as: Int.self)
    if length == 0 {
      head = 0
      length = unsafe base.load(as: Int.self)
    }
    return unsafe UnsafeRawBufferPointer(start: base + head + Self.prefix, count: length)
  }

  /// Takes the oldest frame away, if there is one.
  func pop() {
    guard let frame = unsafe first else { return }
    head += Self.prefix + (frame.count + 7) & ~7
  }

  /// Takes every frame away and tells how many there were.
  func removeAll() -> Int {
    var count = 0
    while unsafe first != nil {
      pop()
      count += 1
    }
    return count
  }
}
