import Testing

@testable import Emulation

@Suite struct InterruptTests {
  enum Reg {
    static let eicr = 0x800
    static let eics = 0x808
    static let eiac = 0x810
    static func eitr(_ n: Int) -> Int { n < 24 ? 0x820 + 4 * n : 0x12300 + 4 * (n - 24) }
    static let eims = 0x880
    static let eimc = 0x888
    static let eiam = 0x890
    static let gpie = 0x898
    static func ivar(_ n: Int) -> Int { 0x900 + 4 * n }
    static let ivarMisc = 0xA00
    static func eicsEx(_ n: Int) -> Int { 0xA90 + 4 * n }
    static func eimsEx(_ n: Int) -> Int { 0xAA0 + 4 * n }
    static func eimcEx(_ n: Int) -> Int { 0xAB0 + 4 * n }
    static func eiamEx(_ n: Int) -> Int { 0xAD0 + 4 * n }
  }
  private let linkChange: UInt32 = 1 << 20
  private let autoMask: UInt32 = 1 << 30
  private let msixMode: UInt32 = 1 << 4

  /// A card as Linux sets it up for two queues: vectors 0 and 1 for them, 2 for the rest.
  private func linuxCard() throws -> TestCard {
    let card = try TestCard()
    card.step()
    card.nic.writeConfig(6, to: 4, width: 2)
    card.nic.writeConfig(0x803F, to: 0x72, width: 2)
    card[Reg.eiamEx(0)] = .max
    card[Reg.eiamEx(1)] = .max
    card[Reg.gpie] = 0xC000_0036
    card[Reg.ivar(0)] = 0x8181_8080
    card[Reg.ivarMisc] = 0x8200
    card[Reg.eiac] = 0x4000_FFFF
    _ = card[Reg.eicr]
    card[Reg.eims] = 0xD618_0000
    card[Reg.eimsEx(0)] = .max
    card[Reg.eimsEx(1)] = .max
    #expect(card.sink.take() == [])
    return card
  }

  @Test func `a frame raises its queue's vector once`() throws {
    let card = try linuxCard()
    card.nic.interruptUnit.received(queue: 1)
    card.nic.interruptUnit.received(queue: 1)
    card.nic.interruptUnit.deliver()
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == ["msix 1"])
    card.nic.interruptUnit.transmitted(queue: 0)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == ["msix 0"])
  }

  @Test func `a queue without a valid vector raises nothing`() throws {
    let card = try linuxCard()
    card[Reg.ivar(0)] = 0x0101_0000
    card.nic.interruptUnit.received(queue: 1)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == [])
    #expect(card[Reg.eics] & 0xFFFF == 0)
  }

  @Test func `a message clears its cause where EIAC says so`() throws {
    let card = try linuxCard()
    card.nic.interruptUnit.received(queue: 0)
    card.nic.interruptUnit.deliver()
    #expect(card[Reg.eics] & 1 == 0)
    card[Reg.eiac] = 0
    card[Reg.eimsEx(0)] = 1
    card.nic.interruptUnit.received(queue: 0)
    card.nic.interruptUnit.deliver()
    #expect(card[Reg.eics] & 1 == 1)
  }

  @Test func `a message masks its vector until software unmasks it`() throws {
    let card = try linuxCard()
    card.nic.interruptUnit.received(queue: 0)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == ["msix 0"])
    #expect(card[Reg.eimsEx(0)] == UInt32.max - 1)
    card.nic.interruptUnit.received(queue: 0)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == [])
    card[Reg.eimsEx(0)] = 1
    #expect(card.sink.take() == ["msix 0"])
  }

  @Test func `without EIAME a message masks nothing`() throws {
    let card = try linuxCard()
    card[Reg.gpie] = 0x8000_0036
    card.nic.interruptUnit.received(queue: 0)
    card.nic.interruptUnit.deliver()
    #expect(card[Reg.eimsEx(0)] == .max)
  }

  @Test func `a vector from 16 on is no other cause`() throws {
    let card = try linuxCard()
    card[Reg.ivar(3)] = 0x0000_9480  // transmit queue 6: vector 20
    card[Reg.eims] = 0
    card[Reg.eimc] = linkChange  // bit 20 of the other half
    card.nic.interruptUnit.transmitted(queue: 6)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == ["msix 20"])
    #expect(card[Reg.eics] & linkChange == 0)
  }

  @Test func `vector 63 has its mask in the second word`() throws {
    let card = try linuxCard()
    card[Reg.ivar(63)] = 0xBF00_0000
    card[Reg.eimcEx(1)] = 1 << 31
    card.nic.interruptUnit.transmitted(queue: 127)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == [])
    card[Reg.eimsEx(1)] = 1 << 31
    #expect(card.sink.take() == ["msix 63"])
  }

  @Test func `a link change is told until it is cleared`() throws {
    let card = try linuxCard()
    card.cable.isConnected = false
    card.step()
    #expect(card.sink.take() == ["msix 2"])
    card.step()
    #expect(card.sink.take() == [])
    #expect(card[Reg.eics] == 0x8010_0000)
    #expect(card[Reg.eics] == 0x8010_0000, "reading EICS clears nothing")
    card[Reg.eicr] = 0x8010_0000
    #expect(card[Reg.eics] == 0)
    #expect(card.sink.take() == [])
  }

  @Test func `a masked link change waits for its mask bit alone`() throws {
    let card = try linuxCard()
    card[Reg.eimc] = linkChange
    card.cable.isConnected = false
    card.step()
    card[Reg.eims] = 0xD608_0000
    #expect(card.sink.take() == [])
    card[Reg.eims] = linkChange
    #expect(card.sink.take() == ["msix 2"])
  }

  @Test func `software sets causes through EICS`() throws {
    let card = try linuxCard()
    card[Reg.eicsEx(0)] = 3
    #expect(card.sink.take() == ["msix 0", "msix 1"])
    card[Reg.eics] = linkChange
    #expect(card.sink.take() == ["msix 2"])
  }

  @Test func `EIMS ignores zeros`() throws {
    let card = try TestCard()
    card[Reg.eims] = 0x0010_0003
    card[Reg.eims] = 0
    #expect(card[Reg.eims] == 0x0010_0003)
    card[Reg.eimc] = 0x0010_0001
    #expect(card[Reg.eims] == 2)
  }

  @Test func `the low halves of the masks are the same`() throws {
    let card = try TestCard()
    card[Reg.eims] = 0x8000_0001
    #expect(card[Reg.eimsEx(0)] == 1)
    card[Reg.eimsEx(0)] = 0xFFFF_0002
    #expect(card[Reg.eims] == 0x8000_0003)
    card[Reg.eimc] = .max
    #expect(card[Reg.eimsEx(0)] == 0xFFFF_0000)
    card[Reg.eiam] = 0x1234_5678
    #expect(card[Reg.eiamEx(0)] == 0x5678)
    card[Reg.eiamEx(0)] = 0x9ABC_DEF0
    #expect(card[Reg.eiam] == 0x1234_DEF0)
  }

  @Test func `reading EICR clears it`() throws {
    let card = try TestCard()
    card.step()
    card[Reg.eics] = 0x0010_0005
    #expect(card[Reg.eicr] == 0x8010_0005)
    #expect(card[Reg.eicr] == 0)
  }

  @Test func `with OCD, reading EICR clears other causes only`() throws {
    let card = try TestCard()
    card.step()
    card[Reg.gpie] = 1 << 5
    card[Reg.eics] = 0x0010_0005
    #expect(card[Reg.eicr] == 0x8010_0005)
    #expect(card[Reg.eicr] == 5)
    card[Reg.eicr] = 4
    #expect(card[Reg.eicr] == 1)
  }

  // MARK: Throttling

  @Test func `EITR keeps a vector quiet for its interval`() throws {
    let card = try linuxCard()
    var time: UInt64 = 1_000_000
    card.nic.interruptUnit.now = { time }
    card[Reg.gpie] = 0x8000_0036  // no auto-mask
    card[Reg.eitr(0)] = 0xC8  // 50 µs
    func frame(at newTime: UInt64) -> [String] {
      time = newTime
      card.nic.interruptUnit.received(queue: 0)
      card.nic.interruptUnit.deliver()
      return card.sink.take()
    }
    #expect(frame(at: 1_000_000) == ["msix 0"])
    #expect(frame(at: 1_049_999) == [])
    time = 1_050_000
    card.step()
    #expect(card.sink.take() == ["msix 0"])
    #expect(frame(at: 1_099_999) == [])
    card[Reg.eitr(0)] = 0x8000_00C8
    #expect(card.sink.take() == [], "CNT_WDIS leaves the interval running")
    card[Reg.eitr(0)] = 0xC8
    #expect(card.sink.take() == ["msix 0"])
    #expect(card[Reg.eitr(0)] == 0xC8)
  }

  @Test func `each vector has its own interval`() throws {
    let card = try linuxCard()
    card.nic.interruptUnit.now = { 77 }
    card[Reg.eitr(0)] = 0xFF8
    for _ in 0..<2 {
      card.nic.interruptUnit.received(queue: 0)
      card.nic.interruptUnit.received(queue: 1)
      card.nic.interruptUnit.deliver()
      card[Reg.eimsEx(0)] = 3
    }
    #expect(card.sink.take() == ["msix 0", "msix 1", "msix 1"])
  }

  @Test func `the registers of vectors from 24 on are elsewhere`() throws {
    let card = try linuxCard()
    card.nic.interruptUnit.now = { 77 }
    card[Reg.ivar(0)] = 0x9898  // queue 0: vector 24
    card[Reg.eitr(24)] = 0xFF8
    for _ in 0..<2 {
      card.nic.interruptUnit.received(queue: 0)
      card.nic.interruptUnit.deliver()
      card[Reg.eimsEx(0)] = .max
    }
    #expect(card.sink.take() == ["msix 24"])
  }

  // MARK: Other ways to deliver

  @Test func `with MSI-X but not MSIX_MODE, all comes on vector 0`() throws {
    let card = try linuxCard()
    card[Reg.gpie] = 0
    card[Reg.ivar(0)] = 0x8580
    card.nic.interruptUnit.transmitted(queue: 0)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == ["msix 0"])
    #expect(card[Reg.eics] == 1 << 5)
    card[Reg.eics] = linkChange
    #expect(card.sink.take() == ["msix 0"])
  }

  @Test(arguments: [(4, 2, 6), (0x72, 0x003F, 0x803F)])
  func `vectors wait for bus mastering and for MSI-X in config space`(
    offset: Int, off: UInt32, on: UInt32
  ) throws {
    let card = try linuxCard()
    card.nic.writeConfig(off, to: offset, width: 2)
    card.nic.interruptUnit.received(queue: 1)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == [])
    card.nic.writeConfig(on, to: offset, width: 2)
    #expect(card.sink.take() == ["msix 1"])
  }

  @Test func `MSI waits for bus mastering`() throws {
    let card = try TestCard()
    card.nic.writeConfig(1, to: 0x52, width: 2)
    card[Reg.eims] = 1
    card[Reg.eics] = 1
    #expect(card.sink.take() == [])
    card.nic.writeConfig(6, to: 4, width: 2)
    #expect(card.sink.take() == ["msi 0"])
  }

  @Test func `messages wait while MSI-X is masked as a whole`() throws {
    let card = try linuxCard()
    card.nic.writeConfig(0xC03F, to: 0x72, width: 2)
    card.nic.interruptUnit.received(queue: 1)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == [])
    card.nic.writeConfig(0x803F, to: 0x72, width: 2)
    #expect(card.sink.take() == ["msix 1"])
  }

  @Test func `MSI has one message for all causes`() throws {
    let card = try TestCard()
    card.nic.writeConfig(6, to: 4, width: 2)
    card.nic.writeConfig(1, to: 0x52, width: 2)
    card[Reg.gpie] = 6
    card[Reg.eiam] = 0xFFFF
    card[Reg.ivar(0)] = 0x8080
    card[Reg.eims] = 0x8010_0000
    card[Reg.eimsEx(0)] = 1
    card.nic.interruptUnit.received(queue: 0)
    card.nic.interruptUnit.deliver()
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == ["msi 0"])
    card[Reg.eimc] = .max
    #expect(card[Reg.eicr] & 0xFFFF == 1)
    card.nic.interruptUnit.received(queue: 0)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == [])
    card[Reg.eimsEx(0)] = 1
    #expect(card.sink.take() == ["msi 0"])
  }

  @Test func `without MSI-X, reading EICR masks what EIAM names`() throws {
    let card = try TestCard()
    card[Reg.eiam] = 0x0010_0001
    card[Reg.eims] = 0x0010_0003
    card[Reg.eics] = 0x0010_0003
    _ = card[Reg.eicr]
    #expect(card[Reg.eims] == 2)
  }

  @Test func `INTx is told when it goes up`() throws {
    let card = try lineCard()
    card[Reg.eics] = 1
    #expect(card.sink.take() == ["intx 0"])
    #expect(card.config(0x04) & 1 << 19 != 0, "Status shows it")
    card[Reg.eics] = 2
    #expect(card.sink.take() == [], "it is up already")
    _ = card[Reg.eicr]
    #expect(card.config(0x04) & 1 << 19 == 0)
    card[Reg.eics] = 1
    #expect(card.sink.take() == ["intx 0"])
  }

  @Test func `INTx is told again when the host unmasks it and the cause is there`() throws {
    let card = try lineCard()
    card[Reg.eics] = 1
    card.nic.unmaskedINTx()
    #expect(card.sink.take() == ["intx 0", "intx 0"])
    _ = card[Reg.eicr]
    card.nic.unmaskedINTx()
    #expect(card.sink.take() == [])
  }

  @Test func `INTx falls when its cause is masked`() throws {
    let card = try lineCard()
    card[Reg.eics] = 1
    card[Reg.eimc] = .max
    card.nic.unmaskedINTx()
    #expect(card.sink.take() == ["intx 0"])
    card[Reg.eims] = 1
    #expect(card.sink.take() == ["intx 0"])
  }

  @Test func `INTx stays quiet while the command register disables it`() throws {
    let card = try lineCard()
    card.nic.writeConfig(0x0407, to: 0x04, width: 2)
    card[Reg.eics] = 1
    #expect(card.sink.take() == [])
    card.nic.writeConfig(0x0007, to: 0x04, width: 2)
    #expect(card.sink.take() == ["intx 0"])
  }

  private func lineCard() throws -> TestCard {
    let card = try TestCard()
    card.step()
    _ = card[Reg.eicr]
    card[Reg.eims] = 0xFFFF
    return card
  }

  @Test func `a reset forgets causes, masks and vectors`() throws {
    let card = try linuxCard()
    card[Reg.eics] = .max
    _ = card.sink.take()
    card[0x00000] = 1 << 26
    for register in [Reg.eics, Reg.eims, Reg.eiac, Reg.eiam, Reg.gpie, Reg.ivar(0), Reg.ivarMisc] {
      #expect(card[register] == 0)
    }
    card[Reg.eimsEx(0)] = .max
    card.nic.interruptUnit.received(queue: 1)
    card.nic.interruptUnit.deliver()
    #expect(card.sink.take() == [])
  }
}
