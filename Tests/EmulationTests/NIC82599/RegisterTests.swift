import Ixy
import Testing

@testable import Emulation

@Suite struct RegisterTests {
  private let reset: UInt32 = 1 << 26

  @Test func `what is no register reads 0 and ignores writes`() throws {
    let card = try TestCard()
    for offset in [0x10, 0x5FFC, 0x10FFC, 0x1FFFC, 0x20000, 0x7FFFC] {
      card[offset] = .max
      #expect(card[offset] == 0)
    }
  }

  @Test func `accesses outside a BAR read 0 and do nothing`() throws {
    let nic = try TestCard().nic
    for bar in [-1, 0, 1, 2, 4, 6, 100] {
      for offset in [-8, -1, .min, .max, .max - 7, 1 << 40, 0x80000, 0x7FFFD] {
        for width in [0, 1, 2, 3, 4, 8, 16, -1] {
          nic.write(.max, bar: bar, to: offset, width: width)
          #expect(nic.read(bar: bar, offset, width: width) == 0)
        }
      }
    }
  }

  @Test(arguments: [
    (0x00008, 0x0008_0080), (0x00020, 0x4), (0x00028, 0xF), (0x00200, 0x0504_0100),
    (0x10010, 0x2730), (0x10148, 0x8000), (0x02F00, 0x0010_8808), (0x03C00, 0x200 << 10),
    (0x03C1C, 0x200 << 10), (0x04240, 0x0801_2C0B), (0x042A0, 0xC19D_6284),
    (0x04268, 0x05EE_0000), (0x04900, 0x00C0_0000), (0x04950, 0x96), (0x04954, 0),
    (0x04A80, 0x8100_0004), (0x05088, 0x8100), (0x08100, 0x10), (0x0CC00, 0xA0 << 10),
    (0x01014, 0x402), (0x0D014, 0x402), (0x0DFD4, 0x402), (0x0100C, 0xA200), (0x0600C, 0x2A00),
    (0x08804, 3), (0x08D04, 3), (0x042D0, 0), (0x15F00, 0), (0x04218, 0x1A0),
  ])
  func `a register starts with its reset value`(offset: Int, value: Int) throws {
    #expect(try TestCard()[offset] == UInt32(value))
  }

  @Test func `the first receive address is the EEPROM's`() throws {
    let card = try TestCard()
    #expect(card[0x5400] == 0x105E_0002)
    #expect(card[0x5404] == 0x8000_3020)
    #expect(card[0xA208] == 0)
  }

  @Test(arguments: [
    (0x1000, 0xFFFF_FF80), (0x1008, 0xF_FF80), (0x1010, 0xFFFF), (0x1018, 0xFFFF),
    (0xDFD8, 0xFFFF), (0x6000, 0xFFFF_FF80), (0x7FC8, 0xF_FF80), (0x5404, 0x8000_FFFF),
    (0x03220, 0x8007_FFF0), (0x03260, 0x8007_FFF0), (0x03008, 0xFFFF_FFFF),
    (0x03200, 0xFFFF_FFFF), (0x05200, 0xFFFF_FFFF), (0x053FC, 0xFFFF_FFFF),
    (0x0A1FC, 0xFFFF_FFFF), (0x0A000, 0xFFFF_FFFF),
  ])
  func `a register keeps its writable bits`(offset: Int, mask: Int) throws {
    let card = try TestCard()
    for pattern: UInt32 in [.max, 0x5A5A_5A5A, 0xA5A5_A5A5, 0] {
      card[offset] = pattern
      #expect(card[offset] == pattern & UInt32(mask))
    }
  }

  @Test(arguments: [
    (0x00004, 0x00000), (0x02100, 0x01014), (0x0213C, 0x013D4), (0x0220C, 0x010CC),
    (0x05478, 0x0A278), (0x0547C, 0x0A27C), (0x05484, 0x0EA04), (0x05818, 0x0EC80),
    (0x05C7C, 0x0EB7C), (0x05CA4, 0x0EBA4),
  ])
  func `an alias is the same register`(low: Int, high: Int) throws {
    let card = try TestCard()
    card[low] = 0x0000_1234
    #expect(card[high] == 0x1234)
    card[high] = 0x0000_4320
    #expect(card[low] == 0x4320)
    #expect(card.nic.registers[low] == 0x4320)
    #expect(card.nic.registers[high] == 0x4320)
  }

  @Test func `a counter is cleared by reading it, at either address`() throws {
    let card = try TestCard()
    card.nic.registers[0x04074] = 7
    #expect(card[0x04074] == 7)
    #expect(card[0x04074] == 0)
    card.nic.registers[0x06070] = 9
    #expect(card[0x08684] == 9)
    #expect(card[0x06070] == 0)
    card[0x04074] = 5
    #expect(card[0x04074] == 0, "writes are ignored")
  }

  @Test func `wake-up status is cleared by writing ones`() throws {
    let card = try TestCard()
    card.nic.registers[0x5810] = 0xFF
    card[0x5810] = 0x0F
    #expect(card[0x5810] == 0xF0)
  }

  @Test func `an 8-byte write is two registers`() throws {
    let card = try TestCard()
    card.nic.write(0x0001_8849_1234_5678, bar: 0, to: 0xEE28, width: 8)
    #expect(card[0xEE28] == 0x1234_5678)
    #expect(card[0xEE2C] == 0x0001_8848, "the operation is over at once")
    #expect(card.nic.read(bar: 0, 0xEE28, width: 8) == 0x0001_8848_1234_5678)
  }

  @Test func `a narrow write leaves the other bytes alone`() throws {
    let card = try TestCard()
    card[0x5204] = 0x1122_3344
    card.nic.write(0xAB, bar: 0, to: 0x5205, width: 1)
    card.nic.write(0xCDEF, bar: 0, to: 0x5206, width: 2)
    #expect(card[0x5204] == 0xCDEF_AB44)
    #expect(card.nic.read(bar: 0, 0x5206, width: 2) == 0xCDEF)
    #expect(card.nic.read(bar: 0, 0x5205, width: 1) == 0xAB)
  }

  @Test func `the I/O window reaches the registers`() throws {
    let card = try TestCard()
    card.nic.write(0x5204, bar: 2, to: 0, width: 4)
    card.nic.write(77, bar: 2, to: 4, width: 4)
    #expect(card[0x5204] == 77)
    #expect(card.nic.read(bar: 2, 4, width: 4) == 77)
    card.nic.write(0xFFFF_FFFF, bar: 2, to: 0, width: 4)
    card.nic.write(1, bar: 2, to: 4, width: 4)
    #expect(card.nic.read(bar: 2, 4, width: 4) == 0)
  }

  @Test func `the MSI-X table is stored`() throws {
    let card = try TestCard()
    card.nic.write(0xFEE0_0000, bar: 4, to: 0x3F0, width: 4)
    #expect(card.nic.read(bar: 4, 0x3F0, width: 4) == 0xFEE0_0000)
    card.nic.write(1, bar: 4, to: 0x2000, width: 4)
    #expect(card.nic.read(bar: 4, 0x2000, width: 4) == 0)
  }

  @Test(arguments: [(2, 0), (2, 4), (4, 0x3F0)])
  func `a narrow write elsewhere leaves the other bytes alone`(bar: Int, offset: Int) throws {
    let card = try TestCard()
    card.nic.write(0x5204, bar: 2, to: 0, width: 4)
    card.nic.write(0x1122_3344, bar: bar, to: offset, width: 4)
    card.nic.write(0xAB, bar: bar, to: offset + 1, width: 1)
    card.nic.write(0xCDEF, bar: bar, to: offset + 2, width: 2)
    #expect(card.nic.read(bar: bar, offset, width: 4) == 0xCDEF_AB44)
  }

  @Test func `a narrow write through the I/O window does not read the register`() throws {
    let card = try TestCard()
    card.nic.registers[0x4074] = 7
    card.nic.write(0x4074, bar: 2, to: 0, width: 4)
    card.nic.write(1, bar: 2, to: 4, width: 1)
    #expect(card[0x4074] == 7)
  }

  @Test func `the next client finds a card as after power-on`() throws {
    let card = try TestCard()
    card[0x10018] = 0xCAFE_0000 | 0x100 << 2 | 1
    card.nic.write(0xFEE0_0000, bar: 4, to: 0x3F0, width: 4)
    card.nic.write(0x5204, bar: 2, to: 0, width: 4)
    _ = card.nic.renewSharedPages()
    #expect(card.nic.read(bar: 4, 0x3F0, width: 4) == 0)
    #expect(card.nic.read(bar: 2, 0, width: 4) == 0)
    card[0x10014] = 0x100 << 2 | 1
    #expect(card[0x10014] >> 16 == 0xFFFF)
  }

  @Test func `flow director reports its initialization`() throws {
    let card = try TestCard()
    card[0xEE00] = 0x4A06_0001
    #expect(card[0xEE00] == 0x4A06_0009)
    card[0xEE00] = 0
    #expect(card[0xEE00] == 0)
  }

  // MARK: Reset

  @Test(arguments: [1 << 26, 1 << 3, 1 << 26 | 1 << 3, 1 << 26 | 1 << 2])
  func `CTRL's resets clear themselves and restore everything`(bits: Int) throws {
    let card = try TestCard()
    let before = card.nic.map.blocks.filter { $0.kind == .readWrite }.flatMap(\.offsets)
      .map { ($0, card.nic.registers[$0]) }
    for (offset, _) in before where offset != 0 { card[offset] = 0xA5A5_A5A5 }
    card[0] = UInt32(bits)
    #expect(card[0] == 0)
    for (offset, value) in before { #expect(card.nic.registers[offset] == value) }
    #expect(card[0x5400] == 0x105E_0002)
    #expect(card[0xA200] == 0x105E_0002)
    #expect(card.nic.registers[0x5404] == 0x8000_3020)
  }

  @Test func `a reset leaves config space and semaphores alone`() throws {
    let card = try TestCard()
    card.nic.writeConfig(6, to: 4, width: 2)
    _ = card[0x10140]
    card[0x10160] = 2
    card[0] = reset
    #expect(card.config(4) & 0xFFFF == 6)
    #expect(card[0x10140] == 1)
    #expect(card[0x10160] == 2)
  }

  @Test func `a reset clears the counters`() throws {
    let card = try TestCard()
    for block in card.nic.map.blocks where block.kind == .clearOnRead {
      for offset in block.offsets { card.nic.registers[offset] = 3 }
    }
    card[0] = reset
    for block in card.nic.map.blocks where block.kind == .clearOnRead {
      for offset in block.offsets { #expect(card[offset] == 0) }
    }
  }

  @Test func `PCIe master disable shows in STATUS at once`() throws {
    let card = try TestCard()
    #expect(card[8] & 1 << 19 != 0)
    card[0] = 1 << 2
    #expect(card[8] & 1 << 19 == 0)
  }

  @Test func `the wire hears of the receiver`() throws {
    let card = try TestCard()
    card[0x3000] = 1
    card[0x3000] = 1
    card[0x3000] = 0
    card[0x3000] = 1
    card[0] = reset
    #expect(card.cable.receiverChanges == [true, false, true, false])
  }

  @Test func `queues answer ENABLE at once`() throws {
    let card = try TestCard()
    for offset in [0x1028, 0x1FE8, 0xD028, 0xDFE8, 0x6028, 0x7FE8] {
      card[offset] = 1 << 25 | 1 << 26
      #expect(card[offset] == 1 << 25)
      card[offset] = 1 << 26
      #expect(card[offset] == 0)
    }
  }

  @Test func `the X540 has its own ids, packet buffer and flash`() throws {
    let card = try TestCard(.x540)
    #expect(card.config(0) == 0x1528_8086)
    #expect(card[0x3C00] == 384 << 10)
    #expect(card[0x10010] == 0x0400_2730)
    #expect(try TestCard(.x550).config(0) == 0x1563_8086)
  }

  @Test func `no offset is listed twice by accident`() throws {
    for family in [NIC82599.Family.i82599, .x540, .x550] {
      var seen: [Int: String] = [:]
      for block in RegisterTable.blocks(of: family) {
        for offset in block.offsets {
          #expect(offset % 4 == 0 && offset < RegisterFile.size)
          // A difference of a family bears the same name.
          #expect(seen[offset] == nil || seen[offset] == block.name, "\(block.name)")
          seen[offset] = block.name
        }
      }
      for alias in RegisterTable.aliases {
        for i in 0..<alias.count {
          #expect(seen[alias.offset + i * alias.stride] == nil)
          #expect(seen[alias.of + i * alias.ofStride] != nil)
        }
      }
    }
  }
}
