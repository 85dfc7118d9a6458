import Ixy
import Testing

@testable import Emulation

/// A small generator of pseudo-random numbers, so that a failure can be repeated (xorshift64).
struct SeededNumbers: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed | 1 }
  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }
}

/// A driver that has gone mad.
@Suite struct NonsenseTests {
  /// Values that break things more often than others.
  private static func value(_ numbers: inout SeededNumbers) -> UInt64 {
    switch numbers.next() % 6 {
    case 0: 0
    case 1: .max
    case 2: 1 << (numbers.next() % 64)
    case 3: numbers.next() % 0x2_0000
    case 4: numbers.next() | 1 << 25  // queue enable
    default: numbers.next()
    }
  }

  @Test(arguments: [
    (NIC82599.Family.i82599, true), (.i82599, false), (.x540, true), (.x550, false),
  ])
  func `any access leaves the process alive`(family: NIC82599.Family, shares: Bool) throws {
    let card = try TestCard(family, shares: shares)
    let size = 1 << 20
    // Guards around what is mapped show a write outside.
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 3 * size, alignment: 4096)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0xA5, count: 3 * size)
    try card.nic.dma.map(iova: 0, size: size, base: memory + size, isWritable: true)
    defer { card.nic.dma.unmapAll() }
    var numbers = SeededNumbers(seed: shares ? 0x5EED : 0xFEED)
    let listed = card.nic.map.blocks.flatMap(\.offsets)
    // Looking through shared pages before each access takes its time in a debug build.
    for round in 0..<(shares ? 5_000 : 45_000) {
      let value = Self.value(&numbers)
      let known = listed.randomElement(using: &numbers) ?? 0
      switch numbers.next() % 16 {
      case 0...7: card[known] = UInt32(truncatingIfNeeded: value)
      case 8: _ = card[known]
      case 9: card.nic.write(value, bar: 0, to: known + Int(numbers.next() % 8), width: 8)
      case 10:
        card.nic.write(
          value, bar: Int(value >> 20 & 7) - 1, to: Int(truncatingIfNeeded: numbers.next() >> 40),
          width: 1 << (numbers.next() % 4))
      case 11:
        card.nic.writeConfig(
          UInt32(truncatingIfNeeded: value), to: Int(numbers.next() % 4100),
          width: 1 << (numbers.next() % 3))
      case 12: _ = card.nic.readConfig(Int(numbers.next() % 4100), width: 4)
      case 13:
        if let pages = card.nic.sharedPages {
          // All of the file, as who has it can map all of it.
          let offset = Int(numbers.next() % 0x8000) * 4
          pages.base.storeBytes(
            of: UInt32(truncatingIfNeeded: value), toByteOffset: offset, as: UInt32.self)
        }
      case 14: card.nic.unmaskedINTx()
      default: card.step()
      }
      // Back on its feet now and then, or it would spend its time without bus mastering.
      if round % 64 == 0 { card.nic.writeConfig(6, to: 4, width: 2) }
      if round % 4096 == 0 { card.nic.reset() }
    }
    let bytes = UnsafeRawBufferPointer(start: memory, count: 3 * size)
    #expect(bytes[..<size].allSatisfy { $0 == 0xA5 })
    #expect(bytes[(2 * size)...].allSatisfy { $0 == 0xA5 })
    // After all that, a reset makes it a card again.
    card.nic.reset()
    #expect(card[0x5400] == 0x105E_0002)
    #expect(card[0x04240] == 0x0801_2C0B)
  }

  @Test func `refused DMA is reported, at most once a second`() throws {
    let card = try TestCard()
    var reports: [String] = []
    var time: UInt64 = 5_000_000_000
    card.nic.interruptUnit.now = { time }
    card.nic.onReport = { reports.append($0) }
    for _ in 0..<10 { _ = card.nic.dma.pointer(to: 0x1000, count: 16, forWriting: false) }
    #expect(reports.count == 1)
    #expect(reports.first?.contains("0x1000") == true)
    time += 1_000_000_000
    _ = card.nic.dma.pointer(to: 0x2000, count: 16, forWriting: true)
    #expect(reports.count == 2)
    #expect(reports.last?.contains("11 accesses") == true)
  }
}
