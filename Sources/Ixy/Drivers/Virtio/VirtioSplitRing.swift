import CIxy
import Synchronization

/// A split ring: descriptors, a list of those that are available, a list of those that are used.
///
/// Entries are counted without wrap; the place of entry `i` is `i & mask`, the device sees 16 bits of it.
@safe @usableFromInline struct VirtioSplitRing {
  @usableFromInline let descriptors: UnsafeMutablePointer<Descriptor>
  @usableFromInline let available: UnsafeMutableRawPointer
  @usableFromInline let used: UnsafeMutableRawPointer
  @usableFromInline let mask: Int
  @usableFromInline let hasEvents: Bool
  @usableFromInline let doorbell: VirtioDoorbell
  let memory: VirtioRingMemory

  init(_ memory: VirtioRingMemory, _ doorbell: VirtioDoorbell, hasEvents: Bool) {
    self.memory = memory
    self.doorbell = doorbell
    self.hasEvents = hasEvents
    mask = memory.entries - 1
    unsafe (descriptors, available, used) = unsafe memory.parts
    silence()
  }

  /// The number of entries that the device has used since entry `i`; as large as it likes.
  @inlinable @inline(__always) func pending(since i: Int) -> Int {
    unsafe Int(ixy_load16(used + 2) &- UInt16(truncatingIfNeeded: i))
  }

  /// Where used entry `i` is: an identifier and a length of 32 bits each.
  @inlinable @inline(__always) func usedEntry(_ i: Int) -> UnsafeMutableRawPointer {
    unsafe used + (4 &+ 8 &* (i & mask))
  }

  /// Makes the available entries the first `count` descriptors in turn, for ever.
  func offerAll(of count: Int) {
    for i in 0...mask {
      unsafe (available + (4 + 2 * i)).storeBytes(of: UInt16(i % count), as: UInt16.self)
    }
  }

  /// Gives the device the available entries from `old` up to `new`, and notifies it if it wants that.
  @inlinable @inline(__always) func publish(from old: Int, to new: Int) {
    unsafe ixy_store16(available + 2, UInt16(truncatingIfNeeded: new))
    // The device looks at the index after it has asked to be notified; we the other way round.
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    if wantsNotification(from: old, to: new) { doorbell.ring() }
  }

  @inlinable @inline(__always) func wantsNotification(from old: Int, to new: Int) -> Bool {
    guard hasEvents else { return unsafe ixy_load16(used) & 1 == 0 }
    let event = unsafe ixy_load16(usedEntry(mask) + 8)
    return UInt16(truncatingIfNeeded: new) &- event &- 1 < UInt16(truncatingIfNeeded: new &- old)
  }

  /// Asks the device not to interrupt; with events it does so once only after each `listen`.
  @inlinable @inline(__always) func silence() {
    if !hasEvents { unsafe ixy_store16(available, 1) }
  }

  /// Asks for an interrupt when the next entry is used.
  func listen() {
    unsafe ixy_store16(available, 0)
    unsafe ixy_store16(available + 4 + 2 * (mask + 1), ixy_load16(used + 2))
    // Whoever listens looks at the ring once more; the device must see this before that look.
    atomicMemoryFence(ordering: .sequentiallyConsistent)
  }
}
