import Testing

@testable import Emulation

@Suite struct EEPROMTests {
  private func word(_ card: TestCard, _ place: Int) -> UInt16 {
    card[0x10014] = UInt32(place) << 2 | 1
    let value = card[0x10014]
    #expect(value & 2 != 0, "DONE")
    #expect(value >> 2 & 0x3FFF == UInt32(place))
    return UInt16(value >> 16)
  }

  @Test(arguments: [NIC82599.Family.i82599, .x540])
  func `the words add up to BABA`(family: NIC82599.Family) throws {
    let card = try TestCard(family)
    var sum: UInt16 = 0
    for place in 0...0x3F { sum &+= word(card, place) }
    for pointer in 3...0xE {
      #expect([0, 0xFFFF].contains(word(card, pointer)), "no section to add")
    }
    #expect(sum == 0xBABA)
    // An X540's driver may add these two as well.
    #expect(word(card, 0x40) &+ word(card, 0x41) == 0)
  }

  @Test func `it holds the address`() throws {
    let card = try TestCard()
    #expect((0..<3).map { word(card, $0) } == [0x0002, 0x105E, 0x3020])
  }

  @Test(arguments: 3...6)
  func `every type of module has words for CORECTL`(type: Int) throws {
    let card = try TestCard()
    var place = Int(word(card, 0x2B)) + 1
    while word(card, place) != 0xFFFF, Int(word(card, place)) != type { place += 2 }
    #expect(Int(word(card, place)) == type)
    let data = Int(word(card, place + 1))
    #expect(word(card, data + 1) != 0xFFFF)
    #expect(word(card, data + 2) == 0xFFFF)
  }

  @Test func `the part number has the length that it says`() throws {
    let card = try TestCard()
    #expect(word(card, 0x15) == 0xFAFA)
    let block = Int(word(card, 0x16))
    #expect(word(card, block) == 6)
    #expect(word(card, block + 1) == 0x3030)
  }

  @Test func `words beyond its end are all ones`() throws {
    let card = try TestCard()
    #expect(word(card, 1024) == 0xFFFF)
    #expect(word(card, 0x3FFF) == 0xFFFF)
  }

  @Test func `a written word stays over a reset`() throws {
    let card = try TestCard()
    card[0x10018] = 0xCAFE_0000 | 0x100 << 2 | 1
    #expect(card[0x10018] & 2 != 0)
    card[0x10018] = 0xCAFE_0000 | 0x3FFF << 2 | 1
    card.nic.reset()
    #expect(word(card, 0x100) == 0xCAFE)
  }

  @Test func `without START nothing is read or written`() throws {
    let card = try TestCard()
    card[0x10014] = 0x15 << 2
    #expect(card[0x10014] & 2 == 0)
    let before = word(card, 5)
    card[0x10018] = 0x1234_0000 | 5 << 2
    #expect(word(card, 5) == before)
  }
}

/// Bit-bangs EEC as a driver does.
private struct SerialHost {
  let card: TestCard
  private let eec = 0x10010

  init(_ card: TestCard) {
    self.card = card
    set(0x40)
    #expect(card[eec] & 0x80 != 0, "granted")
    deselect()
  }

  private func set(_ bits: UInt32) { card[eec] = card[eec] & ~0x7F | bits }
  private func deselect() {
    set(0x42)
    set(0x40)
  }

  /// Ends the command before; sends bytes; reads some.
  func command(_ bytes: [UInt8], reading count: Int = 0) -> [UInt8] {
    deselect()
    for byte in bytes {
      for bit in (0..<8).reversed() {
        let data: UInt32 = byte >> UInt8(bit) & 1 == 1 ? 4 : 0
        for clock: UInt32 in [0, 1, 0] { set(0x40 | data | clock) }
      }
    }
    let read = (0..<count).map { _ in
      (0..<8).reduce(UInt8(0)) { byte, _ in
        set(0x41)
        defer { set(0x40) }
        return byte << 1 | (card[eec] & 8 != 0 ? 1 : 0)
      }
    }
    deselect()
    return read
  }
}

@Suite struct EEPROMPinTests {
  @Test func `the pins are granted while they are asked for`() throws {
    let card = try TestCard()
    card[0x10010] = 0x2770
    #expect(card[0x10010] == 0x27F0)
    card[0x10010] = 0x2730
    #expect(card[0x10010] == 0x2730)
  }

  @Test func `words come out bit by bit, low byte first`() throws {
    let host = SerialHost(try TestCard())
    #expect(host.command([0x05], reading: 1) == [0], "ready")
    #expect(host.command([0x03, 0x00, 0x00], reading: 6) == [0x02, 0x00, 0x5E, 0x10, 0x20, 0x30])
    #expect(host.command([0x03, 0x00, 0x2A], reading: 2) == [0xFA, 0xFA])
    #expect(host.command([0x03, 0xFF, 0xFF], reading: 2) == [0xFF, 0x02], "around the end")
  }

  @Test func `words are written after they were enabled`() throws {
    let host = SerialHost(try TestCard())
    _ = host.command([0x02, 0x02, 0x00, 0x34, 0x12])
    #expect(host.command([0x03, 0x02, 0x00], reading: 2) == [0xFF, 0xFF])
    _ = host.command([0x06])
    _ = host.command([0x02, 0x02, 0x00, 0x34, 0x12])
    #expect(host.command([0x03, 0x02, 0x00], reading: 2) == [0x34, 0x12])
    _ = host.command([0x02, 0x02, 0x00, 0x00, 0x00])
    #expect(host.command([0x03, 0x02, 0x00], reading: 2) == [0x34, 0x12], "disabled again")
  }
}

/// Bit-bangs I2CCTL as a driver does.
private struct TwoWireHost {
  let card: TestCard
  private let register = 0x28

  private func lines(clock: Bool, data: Bool) {
    card[register] = (clock ? 2 : 0) | (data ? 8 : 0)
    if clock { #expect(card[register] & 1 == 1, "nobody stretches the clock") }
  }

  private var data: Bool { card[register] & 4 != 0 }

  init(_ card: TestCard) { self.card = card }

  func start() {
    lines(clock: false, data: true)
    lines(clock: true, data: true)
    lines(clock: true, data: false)
    lines(clock: false, data: false)
  }

  func stop() {
    lines(clock: false, data: false)
    lines(clock: true, data: false)
    lines(clock: true, data: true)
  }

  /// Sends a byte; whether it was acknowledged.
  func send(_ byte: UInt8) -> Bool {
    for bit in (0..<8).reversed() {
      let data = byte >> UInt8(bit) & 1 == 1
      lines(clock: false, data: data)
      lines(clock: true, data: data)
      lines(clock: false, data: data)
    }
    lines(clock: false, data: true)
    lines(clock: true, data: true)
    defer { lines(clock: false, data: true) }
    return !data
  }

  func receive(acknowledge: Bool) -> UInt8 {
    var byte: UInt8 = 0
    for _ in 0..<8 {
      lines(clock: false, data: true)
      lines(clock: true, data: true)
      byte = byte << 1 | (data ? 1 : 0)
      lines(clock: false, data: true)
    }
    lines(clock: false, data: !acknowledge)
    lines(clock: true, data: !acknowledge)
    lines(clock: false, data: !acknowledge)
    return byte
  }

  /// Reads `count` bytes from `place` on, as drivers read one.
  func read(_ place: UInt8, count: Int = 1) -> [UInt8] {
    start()
    #expect(send(0xA0))
    #expect(send(place))
    start()
    #expect(send(0xA1))
    let bytes = (0..<count).map { receive(acknowledge: $0 < count - 1) }
    stop()
    return bytes
  }
}

@Suite struct ModuleTests {
  @Test func `it is an Intel 10GBASE-SR module`() throws {
    let host = TwoWireHost(try TestCard())
    #expect(host.read(0x00) == [3])
    #expect(host.read(0x06) == [0])
    #expect(host.read(0x03) == [0x10])
    #expect(host.read(0x08) == [0])
    #expect([0x25, 0x26, 0x27].flatMap { host.read($0) } == [0x00, 0x1B, 0x21])
  }

  @Test func `it goes on to the next byte while the host acknowledges`() throws {
    let host = TwoWireHost(try TestCard())
    #expect(host.read(0x25, count: 3) == [0x00, 0x1B, 0x21])
    #expect(host.read(0xFF, count: 2)[1] == 3, "around the end")
  }

  @Test func `its checksums are right`() throws {
    let host = TwoWireHost(try TestCard())
    let bytes = host.read(0, count: 96)
    #expect(bytes[0..<63].reduce(0, &+) == bytes[63])
    #expect(bytes[64..<95].reduce(0, &+) == bytes[95])
  }

  @Test func `nobody answers at another address`() throws {
    let host = TwoWireHost(try TestCard())
    host.start()
    #expect(!host.send(0xA2))
    host.stop()
    #expect(host.read(0x00) == [3], "it is ready for the next")
  }

  @Test func `a start in the middle of a byte begins anew`() throws {
    let card = try TestCard()
    let host = TwoWireHost(card)
    host.start()
    for _ in 0..<5 { for value: UInt32 in [0, 2, 0] { card[0x28] = value } }
    #expect(host.read(0x00) == [3])
  }

  @Test func `a reset lets go of the lines`() throws {
    let card = try TestCard()
    card[0x28] = 0
    card[0] = 1 << 26
    #expect(card[0x28] == 0xF)
  }
}

@Suite struct SemaphoreTests {
  @Test func `reading SWSM takes SMBI`() throws {
    let card = try TestCard()
    #expect(card[0x10140] & 1 == 0)
    #expect(card[0x10140] & 1 == 1)
    card[0x10140] = 3
    #expect(card[0x10140] == 3)
    card[0x10140] = 0
    #expect(card[0x10140] == 0)
  }

  @Test func `writing 1 does not take SMBI`() throws {
    let card = try TestCard()
    card[0x10140] = 3
    #expect(card[0x10140] == 2)
  }

  @Test func `the 82599's SW_FW_SYNC is plain`() throws {
    let card = try TestCard()
    #expect(card[0x10160] == 0)
    #expect(card[0x10160] == 0)
    card[0x10160] = 0x402
    #expect(card[0x10160] == 0x402)
  }

  @Test func `reading the X540's SW_FW_SYNC takes REGSMP`() throws {
    let card = try TestCard(.x540)
    #expect(card[0x10160] == 0)
    #expect(card[0x10160] == 1 << 31)
    card[0x10160] = 1 << 31 | 2
    #expect(card[0x10160] == 1 << 31 | 2, "still held")
    card[0x10160] = 2
    #expect(card[0x10160] == 2)
  }

  @Test func `a reset of the whole card frees them`() throws {
    let card = try TestCard(.x540)
    _ = card[0x10140]
    card[0x10160] = 2
    card.nic.reset()
    #expect(card[0x10140] == 0)
    #expect(card[0x10160] == 0)
  }
}

@Suite struct HostInterfaceTests {
  private func read(_ card: TestCard, _ place: Int, count: Int) {
    card[0x15800] = 0xFF06_0031
    card[0x15804] = UInt32(2 * place).byteSwapped
    card[0x15808] = UInt32(UInt16(2 * count).byteSwapped)
    card[0x15F00] = 1 | 2
  }

  @Test func `an X550's EEPROM is read through firmware`() throws {
    let card = try TestCard(.x550)
    #expect(card[0x15F00] & 1 == 1)
    read(card, 0, count: 0x42)
    #expect(card[0x15F00] == 1 | 4, "over, and valid")
    var sum: UInt16 = 0
    for i in 0..<0x21 {
      sum &+= UInt16(truncatingIfNeeded: card[0x1580C + 4 * i])
      sum &+= UInt16(card[0x1580C + 4 * i] >> 16)
    }
    #expect(sum == 0xBABA)
  }

  @Test func `a command that it does not know is not valid`() throws {
    let card = try TestCard(.x550)
    card[0x15800] = 0x77
    card[0x15F00] = 3
    #expect(card[0x15F00] == 1)
  }

  @Test func `more than its buffer holds is refused`() throws {
    let card = try TestCard(.x550)
    read(card, 0, count: 0x7FFF)
    #expect(card[0x15F00] == 1)
    read(card, Int(UInt32.max / 4), count: 2)
    #expect(card[0x1580C] == .max)
  }

  @Test func `the others have no firmware to talk to`() throws {
    for family in [NIC82599.Family.i82599, .x540] {
      let card = try TestCard(family)
      read(card, 0, count: 1)
      #expect(card[0x15F00] == 0)
      #expect(card[0x1580C] == 0)
    }
  }
}
