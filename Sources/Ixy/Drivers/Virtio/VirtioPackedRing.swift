import CIxy
import Synchronization

/// A packed ring: one array of descriptors, which the driver makes available and the device, in its turn,
/// overwrites with what it used.
///
/// Entries are counted without wrap; the place of entry `i` is `i & mask`. Two bits of each descriptor say
/// whose it is, and change their meaning with each turn around the ring.
@safe @usableFromInline struct VirtioPackedRing {
  @usableFromInline let descriptors: UnsafeMutablePointer<Descriptor>
  /// What we say about interrupts, and the device about notifications.
  @usableFromInline let driverEvent: UnsafeMutableRawPointer
  @usableFromInline let deviceEvent: UnsafeMutableRawPointer
  @usableFromInline let mask: Int
  @usableFromInline let doorbell: VirtioDoorbell
  let memory: VirtioRingMemory

  init(_ memory: VirtioRingMemory, _ doorbell: VirtioDoorbell) {
    self.memory = memory
    self.doorbell = doorbell
    mask = memory.entries - 1
    unsafe (descriptors, driverEvent, deviceEvent) = memory.parts
    silence()
  }

  // The second half of a descriptor: length in bits 31:0, identifier in 47:32, flags above.

  /// WRITE: the device writes to the buffer.
  @inlinable @inline(__always) static var write: UInt64 { 1 << 49 }
  /// NEXT: the following descriptor belongs to it.
  @inlinable @inline(__always) static var next: UInt64 { 1 << 48 }
  /// AVAIL and USED.
  @inlinable @inline(__always) static var both: UInt64 { 1 << 55 | 1 << 63 }

  /// AVAIL, USED and the identifier.
  @inlinable @inline(__always) static var state: UInt64 { both | 0xFFFF << 32 }

  /// The same and the length.
  @inlinable @inline(__always) static var outcome: UInt64 { state | 0xFFFF_FFFF }

  /// The two bits of an available descriptor: AVAIL alone in the first turn and every other, then USED alone.
  @inlinable @inline(__always) func available(_ i: Int) -> UInt64 {
    i & (mask &+ 1) == 0 ? 1 << 55 : 1 << 63
  }

  /// The two bits of a used descriptor: both in the first turn and every other, then none.
  @inlinable @inline(__always) func used(_ i: Int) -> UInt64 {
    i & (mask &+ 1) == 0 ? Self.both : 0
  }

  /// The second half of descriptor `i`, read once.
  @inlinable @inline(__always) func word(_ i: Int) -> UInt64 {
    unsafe ixy_load64(UnsafeRawPointer(descriptors + (i & mask)) + 8)
  }

  /// Whether the device has used entry `i`, which it had.
  @inlinable @inline(__always) func isUsed(_ i: Int) -> Bool { word(i) & Self.both == used(i) }

  /// Writes the second half of descriptor `i`, after all else that the device then may read.
  @inlinable @inline(__always) func release(_ i: Int, _ word: UInt64) {
    unsafe ixy_store64(UnsafeMutableRawPointer(descriptors + (i & mask)) + 8, word)
  }

  /// Notifies the device of new entries if it wants that.
  @inlinable @inline(__always) func notify() {
    // The device looks at the ring after it has asked to be notified; we the other way round.
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    if wantsNotification { doorbell.ring() }
  }

  /// Whether the device wants to hear of new entries.
  ///
  /// Its flags: 0 yes, 1 no; 2, for an entry that it would name, was not agreed on.
  @inlinable @inline(__always) var wantsNotification: Bool {
    unsafe ixy_load16(deviceEvent + 2) & 3 != 1
  }

  /// Asks the device not to interrupt.
  @inlinable @inline(__always) func silence() { unsafe ixy_store16(driverEvent + 2, 1) }

  /// Asks for an interrupt when an entry is used.
  func listen() {
    unsafe ixy_store16(driverEvent + 2, 0)
    // Whoever listens looks at the ring once more; the device must see this before that look.
    atomicMemoryFence(ordering: .sequentiallyConsistent)
  }
}

/// Commands over a packed ring.
struct VirtioPackedControlRing: VirtioControlRing {
  private let ring: VirtioPackedRing
  private var next = 0
  private var length = 0

  init(_ ring: VirtioPackedRing) { self.ring = ring }

  mutating func submit(_ parts: [(address: UInt64, length: Int)]) {
    length = parts.count
    var first: UInt64 = 0
    for (k, part) in parts.enumerated() {
      let flag = k == length - 1 ? VirtioPackedRing.write : VirtioPackedRing.next
      let word = UInt64(part.length) | flag | ring.available(next + k)
      unsafe ring.descriptors[(next + k) & ring.mask].low = part.address
      // The first one is what the device looks at: last.
      if k == 0 { first = word } else { ring.release(next + k, word) }
    }
    ring.release(next, first)
    ring.notify()
  }

  mutating func isDone() -> Bool? {
    let word = ring.word(next)
    if word & VirtioPackedRing.both != ring.used(next) { return false }
    guard word >> 32 & 0xFFFF == 0 else { return nil }
    next += length
    return true
  }
}
