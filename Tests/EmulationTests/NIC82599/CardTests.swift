import Ixy
import Testing

@testable import Emulation

/// A card with a driver's hands: rings of 16 descriptors of queues 0 and 70, and their buffers.
private struct Driver {
  let card: TestCard
  let memory: UnsafeMutableRawPointer
  /// Queue registers go through the shared pages.
  let isMapped: Bool
  static let size = 1 << 20

  init(isMapped: Bool) throws {
    self.isMapped = isMapped
    card = try TestCard(shares: isMapped)
    memory = .allocate(byteCount: Self.size, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: Self.size)
    try card.nic.dma.map(iova: 0, size: Self.size, base: memory, isWritable: true)
    card.nic.writeConfig(6, to: 4, width: 2)
    card[0x5080] = 0x300  // FCTRL: promiscuous
    card[0x3000] = 1  // RXCTRL
    card[0x4A80] = 0x8100_0005  // DMATXCTL
  }

  func close() {
    card.nic.dma.unmapAll()
    memory.deallocate()
  }

  /// A register of a queue, by message or through the shared pages.
  func set(_ offset: Int, _ value: UInt32) {
    if let pages = card.nic.sharedPages, isMapped {
      pages.base.storeBytes(of: value, toByteOffset: offset, as: UInt32.self)
    } else {
      card[offset] = value
    }
  }

  func get(_ offset: Int) -> UInt32 {
    guard let pages = card.nic.sharedPages, isMapped else { return card[offset] }
    return pages.base.load(fromByteOffset: offset, as: UInt32.self)
  }

  private func store(_ value: UInt64, at place: Int) {
    memory.storeBytes(of: value, toByteOffset: place, as: UInt64.self)
  }

  /// Sets a queue up; its ring begins at `ring`.
  func start(bank: Int, ring: Int, srrctl: Bool) {
    set(bank, UInt32(ring))
    set(bank + 4, 0)
    set(bank + 8, 256)
    if srrctl { set(bank + 0x14, 0x0200_0402) }
    set(bank + 0x28, 1 << 25)
    set(bank + 0x10, 0)
  }

  func post(ring: Int, _ index: Int, buffer: Int, _ high: UInt64 = 0) {
    store(UInt64(buffer), at: ring + 16 * index)
    store(high, at: ring + 16 * index + 8)
  }

  func isDone(ring: Int, _ index: Int) -> Bool {
    memory.load(fromByteOffset: ring + 16 * index + 8, as: UInt64.self)
      >> (ring == 0 ? 32 : 0) & 1 == 1
  }

  static let transmit = 0x7180  // queue 70
  static let receive = 0x1000
  static let receiveRing = 0x1000

  func startBoth() {
    start(bank: Self.transmit, ring: 0, srrctl: false)
    start(bank: Self.receive, ring: Self.receiveRing, srrctl: true)
    for i in 0..<15 { post(ring: Self.receiveRing, i, buffer: 0x1_0000 + i * 2048) }
    set(Self.receive + 0x18, 15)
  }

  /// Sends a frame of 60 bytes from queue 70.
  func send(_ index: Int = 0) {
    post(ring: 0, index, buffer: 0x8_0000, 0x2B30_0000 | 60 | 60 << 46)
    set(Self.transmit + 0x18, UInt32(index + 1))
  }
}

@Suite struct CardTests {
  private static let frame = [UInt8](repeating: 0xFF, count: 6) + [UInt8](repeating: 7, count: 58)

  @Test(arguments: [false, true])
  func `frames go both ways`(isMapped: Bool) throws {
    let driver = try Driver(isMapped: isMapped)
    defer { driver.close() }
    driver.startBoth()
    driver.send()
    driver.card.cable.incoming = [Self.frame]
    // With mapped pages a queue that was switched on is seen by the next message, or soon.
    if isMapped { _ = driver.card[8] }
    #expect(driver.card.nic.step() == 2)
    #expect(driver.card.cable.outgoing == [[UInt8](repeating: 0, count: 60)])
    #expect(driver.isDone(ring: 0, 0))
    #expect(driver.isDone(ring: Driver.receiveRing, 0))
    #expect(driver.get(Driver.transmit + 0x10) == 1)
    #expect(driver.get(Driver.receive + 0x10) == 1)
    #expect(driver.card[0x4074] == 1)  // GPRC
    #expect(driver.card[0x4080] == 1)  // GPTC
    #expect(driver.card.nic.step() == 0)
  }

  @Test(arguments: [false, true])
  func `a tail alone is enough once the queue is on`(isMapped: Bool) throws {
    let driver = try Driver(isMapped: isMapped)
    defer { driver.close() }
    driver.startBoth()
    _ = driver.card[8]
    for i in 0..<5 {
      driver.send(i)
      #expect(driver.card.nic.step() == 1)
    }
    #expect(driver.card.cable.outgoing.count == 5)
  }

  @Test func `without bus mastering nothing moves`() throws {
    let driver = try Driver(isMapped: false)
    defer { driver.close() }
    driver.startBoth()
    driver.send()
    for (offset, value, width) in [(4, 2, 2), (0x44, 3, 2)] {
      let before = driver.card.nic.readConfig(offset, width: width)
      driver.card.nic.writeConfig(UInt32(value), to: offset, width: width)
      #expect(driver.card.nic.step() == 0)
      if offset == 4 { driver.card.nic.writeConfig(before, to: offset, width: width) }
    }
    #expect(driver.card.cable.outgoing.isEmpty)
    #expect(driver.card.nic.dma.violations == 0)
  }

  @Test func `master disable stops all until it is taken back`() throws {
    let driver = try Driver(isMapped: false)
    defer { driver.close() }
    driver.startBoth()
    driver.card[0] = 1 << 2
    driver.send()
    #expect(driver.card.nic.step() == 0)
    driver.card[0] = 0
    #expect(driver.card.nic.step() == 1)
  }

  @Test(arguments: [false, true])
  func `after a reset nothing moves`(isMapped: Bool) throws {
    let driver = try Driver(isMapped: isMapped)
    defer { driver.close() }
    driver.startBoth()
    _ = driver.card[8]
    driver.card[0] = 1 << 26
    driver.send()
    driver.card.cable.incoming = [Self.frame]
    for _ in 0..<300 { _ = driver.card.nic.step() }
    #expect(driver.card.cable.outgoing.isEmpty)
    #expect(driver.card.cable.incoming.count == 1)
    #expect(!driver.isDone(ring: Driver.receiveRing, 0))
  }

  @Test(arguments: [false, true])
  func `a queue that was switched off leaves its ring alone`(isMapped: Bool) throws {
    let driver = try Driver(isMapped: isMapped)
    defer { driver.close() }
    driver.startBoth()
    _ = driver.card[8]
    driver.set(Driver.receive + 0x28, 0)
    _ = driver.card[8]
    driver.card.cable.incoming = [Self.frame]
    _ = driver.card.nic.step()
    #expect(!driver.isDone(ring: Driver.receiveRing, 0))
  }

  @Test func `a ring that moved behind the card's back is found`() throws {
    let driver = try Driver(isMapped: true)
    defer { driver.close() }
    driver.startBoth()
    _ = driver.card[8]
    // Off, another ring, on: nobody looked in between.
    let ring = 0x3000
    driver.start(bank: Driver.receive, ring: ring, srrctl: true)
    for i in 0..<15 { driver.post(ring: ring, i, buffer: 0x2_0000 + i * 2048) }
    driver.set(Driver.receive + 0x18, 15)
    _ = driver.card[8]
    driver.card.cable.incoming = [Self.frame]
    _ = driver.card.nic.step()
    #expect(driver.isDone(ring: ring, 0))
    #expect(!driver.isDone(ring: Driver.receiveRing, 0))
  }

  @Test func `a frame raises its interrupt in the same step`() throws {
    let driver = try Driver(isMapped: false)
    defer { driver.close() }
    driver.startBoth()
    driver.card.nic.writeConfig(0x803F, to: 0x72, width: 2)
    driver.card[0x898] = 0x10  // GPIE: MSI-X
    driver.card[0x900] = 0x83  // receive queue 0
    driver.card[0x98C] = 0x8500  // transmit queue 70
    driver.card[0xAA0] = .max
    driver.send()
    driver.card.cable.incoming = [Self.frame]
    _ = driver.card.nic.step()
    #expect(driver.card.sink.take() == ["msix 3", "msix 5"])
  }
}
