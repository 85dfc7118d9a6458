import Testing

@testable import Emulation

@Suite struct ConfigSpaceTests {
  @Test func `it is a network card of revision 1`() throws {
    let card = try TestCard()
    #expect(card.config(0x00) == 0x10FB_8086)
    #expect(card.config(0x08) == 0x0200_0001)
    #expect(card.config(0x2C) == 0x0003_8086)
    #expect(card.nic.readConfig(0x3D, width: 1) == 1, "interrupt pin A")
  }

  @Test(arguments: [
    (0x10, 0xFFF8_0004), (0x14, 0xFFFF_FFFF), (0x18, 0xFFFF_FFE1), (0x1C, 0),
    (0x20, 0xFFFF_C004), (0x24, 0xFFFF_FFFF), (0x30, 0),
  ])
  func `a BAR tells its size`(offset: Int, mask: Int) throws {
    let card = try TestCard()
    card.nic.writeConfig(.max, to: offset, width: 4)
    #expect(card.config(offset) == UInt32(mask))
    card.nic.writeConfig(0, to: offset, width: 4)
    #expect(card.config(offset) == (offset % 8 == 0 ? UInt32(mask) & 0xF : 0))
  }

  @Test func `the capabilities are where drivers look`() throws {
    let card = try TestCard()
    var found: [Int: UInt32] = [:]
    var place = Int(card.nic.readConfig(0x34, width: 1))
    while place != 0, found[place] == nil {
      found[place] = card.nic.readConfig(place, width: 1)
      place = Int(card.nic.readConfig(place + 1, width: 1))
    }
    #expect(found == [0x40: 1, 0x50: 5, 0x70: 0x11, 0xA0: 0x10])
    #expect(card.nic.readConfig(0x72, width: 2) & 0x7FF == 63)
    #expect(card.config(0x74) == 4)
    #expect(card.config(0x78) == 0x2004)
    #expect(card.nic.readConfig(0xAA, width: 2) & 1 << 5 == 0, "no transactions pending")
    #expect(card.nic.readConfig(0xB2, width: 2) == 0x1082)
    #expect(card.config(0xA4) & 1 << 28 != 0, "function-level reset")
  }

  @Test func `the extended capabilities are a list`() throws {
    let card = try TestCard()
    #expect(card.config(0x100) == 0x1401_0001)
    #expect(card.config(0x140) == 0x0001_0003)
    #expect(card.config(0x148) == 0x0200_5EFF)
    #expect(card.config(0x144) == 0xFF10_2030)
  }

  @Test func `identity and capabilities are read only`() throws {
    let card = try TestCard()
    let offsets = [0x00, 0x08, 0x2C, 0x34, 0x40, 0x74, 0x78, 0xA0, 0xA4, 0xAC, 0x100, 0x140, 0x144]
    let before = offsets.map { card.config($0) }
    for offset in offsets { card.nic.writeConfig(.max, to: offset, width: 4) }
    #expect(offsets.map { card.config($0) } == before)
  }

  @Test func `the command register keeps its bits`() throws {
    let card = try TestCard()
    card.nic.writeConfig(0xFFFF, to: 4, width: 2)
    #expect(card.nic.readConfig(4, width: 2) == 0x0547)
    card.nic.writeConfig(0x03, to: 4, width: 1)
    #expect(card.nic.readConfig(4, width: 2) == 0x0503)
  }

  @Test func `an access outside reads 0 and does nothing`() throws {
    let card = try TestCard()
    for offset in [-4, -1, 4093, 4096, .max, .min] {
      for width in [4, 8, 0, -1] {
        card.nic.writeConfig(.max, to: offset, width: width)
        #expect(card.nic.readConfig(offset, width: width) == 0)
      }
    }
    #expect(card.config(0) == 0x10FB_8086)
  }

  @Test func `a function-level reset is over at once`() throws {
    let card = try TestCard()
    card.nic.writeConfig(6, to: 4, width: 2)
    card.nic.writeConfig(0x803F, to: 0x72, width: 2)
    card[0x5080] = 0x700
    _ = card[0x10140]
    card.nic.writeConfig(0xA810, to: 0xA8, width: 2)
    #expect(card.nic.readConfig(4, width: 2) == 0)
    #expect(card.nic.readConfig(0x72, width: 2) == 0x3F)
    #expect(card.nic.readConfig(0xA8, width: 2) == 0x2810)
    #expect(card[0x5080] == 0)
    #expect(card[0x10140] == 0)
    #expect(card[0x5400] == 0x105E_0002)
  }

  @Test func `waking up from D3 is a reset`() throws {
    let card = try TestCard()
    card[0x5080] = 0x700
    card.nic.writeConfig(3, to: 0x44, width: 2)
    #expect(card[0x5080] == 0x700)
    card.nic.writeConfig(0, to: 0x44, width: 2)
    #expect(card[0x5080] == 0)
  }

  @Test func `PME status is cleared by a 1`() throws {
    let card = try TestCard()
    card.nic.writeConfig(0x8000, to: 0x44, width: 2)
    #expect(card.nic.readConfig(0x44, width: 2) == 0x2000)
  }

  @Test func `the host's reset forgets all of it`() throws {
    let card = try TestCard()
    card.nic.writeConfig(0x0507, to: 4, width: 2)
    card.nic.writeConfig(0xFFF8_0000, to: 0x10, width: 4)
    card.nic.reset()
    #expect(card.config(4) == 0x0010_0000)
    #expect(card.config(0x10) == 4)
  }
}
