import Testing

@testable import Emulation

@Suite struct LinkTests {
  private let links = 0x042A4

  @Test func `LINKS keeps a loss until it is read`() throws {
    let card = try TestCard()
    #expect(card[links] == 0x7000_0000, "it was down before the power came")
    #expect(card[links] == 0x7000_0080)
    card.cable.isConnected = false
    card.step()
    card.cable.isConnected = true
    card.step()
    #expect(card[links] == 0x7000_0000)
    #expect(card[links] == 0x7000_0080)
  }

  @Test func `without a cable the link is down`() throws {
    let card = try TestCard()
    card.cable.isConnected = false
    #expect(card[links] & 1 << 30 == 0)
    #expect(card[8] & 1 << 7 == 0)
    card.cable.isConnected = true
    #expect(card[8] & 1 << 7 != 0, "no step is needed to see it")
    #expect(card[links] & 1 << 30 != 0)
  }

  @Test func `each change is an interrupt cause`() throws {
    let card = try TestCard()
    card.step()
    for isConnected in [false, true] {
      _ = card[0x800]
      card.step()
      #expect(card[0x808] == 0)
      card.cable.isConnected = isConnected
      card.step()
      #expect(card[0x808] == 0x8010_0000)
    }
  }

  @Test func `the SFP pipeline reset goes through`() throws {
    let card = try TestCard()
    card[0x042A0] = 0x0000_6000
    card[0x042A0] = 0x0000_F000
    #expect(card[0x042B0] >> 16 & 0xF != 0)
    card[0x042A0] = 0x0000_7000
    #expect(card[0x042A0] == 0x6000, "AN_RESTART clears itself")
    _ = card[links]
    #expect(card[links] == 0x7000_0080)
  }

  @Test func `the cage is full while its pin is an input`() throws {
    let card = try TestCard()
    #expect(card[0x20] == 4)
    card[0x20] = 8
    #expect(card[0x20] == 0xC)
    card[0x20] = 0
    #expect(card[0x20] == 4)
    card[0x20] = 1 << 10
    #expect(card[0x20] == 1 << 10)
  }

  // MARK: MDIO

  private func readPHY(_ card: TestCard, port: Int, _ device: Int, _ register: Int) -> UInt16 {
    let place = UInt32(port << 21 | device << 16 | register)
    card[0x425C] = 1 << 30 | place
    #expect(card[0x425C] & 1 << 30 == 0)
    card[0x425C] = 1 << 30 | 3 << 26 | place
    #expect(card[0x425C] & 1 << 30 == 0)
    return UInt16(card[0x4260] >> 16)
  }

  private func writePHY(_ card: TestCard, _ device: Int, _ register: Int, _ value: UInt16) {
    let place = UInt32(device << 16 | register)
    card[0x4260] = UInt32(value)
    card[0x425C] = 1 << 30 | place
    card[0x425C] = 1 << 30 | 1 << 26 | place
  }

  @Test func `the 82599 has no PHY`() throws {
    let card = try TestCard()
    for port in 0..<32 { #expect(readPHY(card, port: port, 1, 8) == 0xFFFF) }
  }

  @Test(arguments: [(NIC82599.Family.x540, 0x0200), (.x550, 0x0220)])
  func `the others have one, at port 0 alone`(family: NIC82599.Family, low: Int) throws {
    let card = try TestCard(family)
    #expect(readPHY(card, port: 0, 1, 8) & 0xC000 == 0x8000)
    #expect(readPHY(card, port: 0, 1, 2) == 0x0154)
    #expect(readPHY(card, port: 0, 1, 3) == UInt16(low))
    #expect(readPHY(card, port: 1, 1, 2) == 0xFFFF)
    #expect(readPHY(card, port: 0, 2, 8) == 0xFFFF, "no such device in it")
    #expect(readPHY(card, port: 0, 1, 4) & 1 == 1, "10 Gb/s")
  }

  @Test func `clause 22 finds nobody`() throws {
    let card = try TestCard(.x540)
    card[0x425C] = 1 << 30 | 1 << 28 | 3 << 26 | 2 << 16
    #expect(card[0x4260] >> 16 == 0xFFFF)
  }

  @Test func `a read may go on to the next register`() throws {
    let card = try TestCard(.x540)
    card[0x425C] = 1 << 30 | 1 << 16 | 2
    card[0x425C] = 1 << 30 | 2 << 26 | 1 << 16
    #expect(card[0x4260] >> 16 == 0x0154)
    card[0x425C] = 1 << 30 | 2 << 26 | 1 << 16
    #expect(card[0x4260] >> 16 == 0x0200)
  }

  @Test func `negotiation can be set up and restarted`() throws {
    let card = try TestCard(.x540)
    card.step()
    #expect(readPHY(card, port: 0, 7, 0x20) == 0x1000)
    writePHY(card, 7, 0x20, 0)
    #expect(readPHY(card, port: 0, 7, 0x20) == 0)
    writePHY(card, 7, 0, 0x3200)
    #expect(readPHY(card, port: 0, 7, 0) == 0x3000)
    #expect(readPHY(card, port: 0, 7, 1) & 0x24 == 0x24)
    card.cable.isConnected = false
    card.step()
    #expect(readPHY(card, port: 0, 7, 1) & 0x24 == 0)
  }

  @Test func `forcing the link mode separates a MAC from its PHY`() throws {
    let card = try TestCard(.x540)
    _ = card[links]
    #expect(card[links] & 1 << 30 != 0)
    let strap = card[0x042A0]
    card[0x042A0] = strap & ~0xE000
    #expect(card[links] & 1 << 30 == 0)
    card[0x042A0] = strap
    #expect(card[links] & 1 << 30 != 0)
  }
}
