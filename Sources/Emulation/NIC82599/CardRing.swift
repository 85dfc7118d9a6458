import CIxy

/// A descriptor ring as the card sees it: where it lies, and which descriptors are the card's.
///
/// Base, length, head and tail are the driver's, and any of them may be nonsense. A ring without
/// descriptors, or with an index beyond its end, gives the card nothing until that is mended.
@safe struct CardRing {
  /// The size of a descriptor.
  static let stride = 16

  private var iova: UInt64 = 0
  private(set) var count = 0
  /// The next descriptor that the card uses.
  private(set) var head = 0
  private var tail = 0
  /// How many descriptors, from the head on, are the card's.
  private(set) var owned = 0
  /// The ring in our memory; nil as long as it is not known, or not in one piece.
  private(set) var start: UnsafeMutableRawPointer?
  /// A descriptor could not be reached: nothing is done until the mappings change.
  private(set) var isBroken = false

  /// Takes base, length, head and tail from the registers of its bank.
  mutating func latch(_ registers: RegisterFile, bank: Int) {
    let high = UInt64(registers[bank + EngineRegister.Bank.baseHigh])
    // The low 7 bits of base and length are not stored (reference, sections 5 and 6).
    iova = high << 32 | UInt64(registers[bank + EngineRegister.Bank.base] & ~0x7F)
    count = Int(registers[bank + EngineRegister.Bank.length] & 0xF_FF80) / Self.stride
    head = Int(registers[bank + EngineRegister.Bank.head])
    tail = Int(registers[bank + EngineRegister.Bank.tail])
    forgetMapping()
    recount()
  }

  /// Takes a tail that the driver has written.
  mutating func setTail(_ value: UInt32) {
    tail = Int(value)
    recount()
  }

  /// Takes a head that the driver has written.
  mutating func setHead(_ value: UInt32) {
    head = Int(value)
    recount()
  }

  private mutating func recount() {
    guard head < count, tail < count else {
      owned = 0
      return
    }
    owned = tail >= head ? tail - head : tail + count - head
  }

  /// Gives `n` descriptors back to the driver.
  @inline(__always)
  mutating func advance(by n: Int = 1) {
    head += n
    if head >= count { head -= count }
    owned -= n
  }

  /// Forgets where the ring is in our memory: the mappings have changed.
  mutating func forgetMapping() {
    unsafe start = nil
    isBroken = false
  }

  /// Descriptor number `offset` from the head, which must be the card's.
  ///
  /// - Returns: nil when it is not mapped, or not aligned; the ring is then broken.
  @inline(__always)
  mutating func descriptor(_ offset: Int, in dma: DMATable) -> UnsafeMutableRawPointer? {
    var index = head + offset
    if index >= count { index -= count }
    if let start = unsafe start { return unsafe start + index * Self.stride }
    return unsafe translate(index, dma)
  }

  @inline(never)
  private mutating func translate(_ index: Int, _ dma: DMATable) -> UnsafeMutableRawPointer? {
    if isBroken { return nil }
    if let window = dma.window(at: iova, forWriting: true),
      let all = unsafe window.pointer(to: iova, count: count * Self.stride),
      unsafe Self.isAligned(all)
    {
      unsafe start = unsafe all
      return unsafe all + index * Self.stride
    }
    // With an IOMMU in a guest each page of the ring is a mapping of its own.
    let address = iova &+ UInt64(index * Self.stride)
    if let one = unsafe dma.pointer(to: address, count: Self.stride, forWriting: true),
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
