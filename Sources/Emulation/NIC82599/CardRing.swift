import CIxy

/// A descriptor ring as the card sees it: where it lies, and which descriptors are the card's.
///
/// Base, length, head and tail are the driver's, and any of them may be nonsense. A ring without
/// descriptors, or with an index beyond its end, gives the card nothing until that is mended.
@safe struct CardRing {
  // SAFETY: `next`, `start` and `end` are used only while `isMapped`, when all of the ring is in
  // one mapping and aligned. `ready` counts the descriptors from `next` on, is at most `count` - 1,
  // and is 0 unless head and tail are below `count`; whoever keeps a pointer calls `forgetMapping`
  // when the mappings change.
  /// The size of a descriptor.
  static let stride = 16

  private var iova: UInt64 = 0
  private(set) var count = 0
  private var tail = 0
  /// How many descriptors, from `next` on, are the card's, when the ring is in one piece of our memory.
  private(set) var ready = 0
  /// How many, from `index` on, when that is not known, or not so.
  private var unmapped = 0
  /// The descriptor at the head, the first one, and the end of that piece.
  private(set) var next = unsafe CardRing.nowhere
  private var start = unsafe CardRing.nowhere
  private var end = unsafe CardRing.nowhere
  private var isMapped = false
  /// The head, unless `isMapped`.
  private var index = 0
  /// A descriptor could not be reached: nothing is done until the mappings change.
  private var isBroken = false

  /// What pointers are that are not used.
  private static var nowhere: UnsafeMutableRawPointer {
    unsafe UnsafeMutableRawPointer(bitPattern: 1).unsafelyUnwrapped
  }

  /// How many descriptors, from the head on, are the card's.
  var owned: Int { ready + unmapped }

  /// The next descriptor that the card uses.
  var head: Int { unsafe isMapped ? (next - start) / Self.stride : index }

  /// Takes base, length, head and tail from the registers of its bank.
  mutating func latch(_ registers: RegisterFile, bank: Int) {
    let high = UInt64(registers[bank + EngineRegister.Bank.baseHigh])
    // The low 7 bits of base and length are not stored (reference, sections 5 and 6).
    iova = high << 32 | UInt64(registers[bank + EngineRegister.Bank.base] & ~0x7F)
    count = Int(registers[bank + EngineRegister.Bank.length] & 0xF_FF80) / Self.stride
    forgetMapping()
    index = Int(registers[bank + EngineRegister.Bank.head])
    tail = Int(registers[bank + EngineRegister.Bank.tail])
    recount()
  }

  /// Takes a tail that the driver has written.
  mutating func setTail(_ value: UInt32) {
    tail = Int(value)
    recount()
  }

  /// Takes a head that the driver has written.
  mutating func setHead(_ value: UInt32) {
    forgetMapping()
    index = Int(value)
    recount()
  }

  private mutating func recount() {
    let head = head
    (ready, unmapped) = (0, 0)
    guard head < count, tail < count else { return }
    let owned = tail >= head ? tail - head : tail + count - head
    if isMapped { ready = owned } else { unmapped = owned }
  }

  /// Gives the descriptor at `next`, one of those that are ready, back to the driver.
  @inline(__always)
  mutating func pass(_ descriptor: UnsafeMutableRawPointer) {
    let following = unsafe descriptor.advanced(by: Self.stride)
    unsafe next = unsafe following == end ? start : following
    ready &-= 1
  }

  /// Gives `n` descriptors back to the driver, wherever they are.
  mutating func advance(by n: Int) {
    let place = wrap(head + n)
    if isMapped {
      unsafe next = unsafe start + place * Self.stride
      ready -= n
    } else {
      index = place
      unmapped -= n
    }
  }

  private func wrap(_ place: Int) -> Int { place < count ? place : place - count }

  /// Forgets where the ring is in our memory: the mappings have changed.
  mutating func forgetMapping() {
    index = head
    (ready, unmapped) = (0, owned)
    (isMapped, isBroken) = (false, false)
  }

  /// Descriptor number `offset` from the head, which must be the card's.
  ///
  /// - Returns: nil when it is not mapped, or not aligned; the ring is then broken.
  mutating func descriptor(_ offset: Int, in dma: DMATable) -> UnsafeMutableRawPointer? {
    let place = wrap(head + offset)
    if isMapped { return unsafe start + place * Self.stride }
    if isBroken { return nil }
    if let window = dma.window(at: iova, forWriting: true),
      let all = unsafe window.pointer(to: iova, count: count * Self.stride),
      unsafe Self.isAligned(all)
    {
      unsafe (start, end) = unsafe (all, all + count * Self.stride)
      unsafe next = unsafe all + index * Self.stride
      (ready, unmapped) = (owned, 0)
      isMapped = true
      return unsafe all + place * Self.stride
    }
    // With an IOMMU in a guest each page of the ring is a mapping of its own.
    let address = iova &+ UInt64(place * Self.stride)
    // A card reads a descriptor before it writes it: where nothing is mapped, it is the read that is refused.
    if unsafe dma.pointer(to: address, count: Self.stride, forWriting: false) != nil,
      let one = unsafe dma.pointer(to: address, count: Self.stride, forWriting: true),
      unsafe Self.isAligned(one)
    {
      return unsafe one
    }
    isBroken = true
    return nil
  }

  /// Whether 64-bit accesses to a descriptor are atomic; a mapping may have any offset.
  private static func isAligned(_ pointer: UnsafeMutableRawPointer) -> Bool {
    UInt(bitPattern: pointer) % 8 == 0
  }
}
