import Testing

@testable import DriverModels
@testable import Ixy

@Suite struct VirtioTransmitTests {
  @Test(arguments: RingKind.allCases, [14, 59, 60, 1514, 1518])
  func `a frame leaves byte for byte`(kind: RingKind, size: Int) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.transmitQueue(0)
    #expect(try queue.transmit(card.pool.packet(virtioFrame(3, size: size))) == nil)
    #expect(card.model.sendAll() == [virtioFrame(3, size: size)])
    #expect(try queue.reclaim() == 0)
    #expect(card.pool.available == 256)
    #expect(card.model.dma.violations == 0)
  }

  @Test(arguments: RingKind.allCases)
  func `frames leave in order over many turns of the ring`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.transmitQueue(0)
    var batch = PacketBatch(capacity: 64)
    var (made, sent) = (0, 0)
    for round in 0..<5000 {
      while batch.count < round % 29 + 1 {
        batch.append(try card.pool.packet(virtioFrame(made, size: 14)))
        made += 1
      }
      _ = try queue.transmit(&batch)
      for frame in card.model.sendAll() {
        if frame != virtioFrame(sent, size: 14) { Issue.record("not frame \(sent)") }
        sent += 1
      }
    }
    #expect(sent == made && sent > 65_600)
    #expect(try queue.reclaim() == 0)
    #expect(card.device.statistics().transmittedPackets == UInt64(made))
    #expect(card.device.statistics().transmittedBytes == UInt64(14 * made))
  }

  @Test(arguments: RingKind.allCases)
  func `packets may be done with in any order`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.transmitQueue(0)
    var random = SystemRandomNumberGenerator()
    var inFlight: [ModelChain] = []
    var number = 0
    for _ in 0..<300 {
      for _ in 0..<Int.random(in: 1...40) {
        guard let unsent = try queue.transmit(card.pool.packet(virtioFrame(number))) else {
          number += 1
          continue
        }
        _ = consume unsent
      }
      while let chain = card.model.take(card.model.queues[1]) { inFlight.append(chain) }
      inFlight.shuffle(using: &random)
      for _ in 0..<Int.random(in: 0...inFlight.count) {
        card.model.use(inFlight.removeLast(), written: 0, in: card.model.queues[1])
      }
      #expect(try queue.reclaim() == inFlight.count)
      #expect(card.pool.available == 256 - inFlight.count)
    }
    #expect(number > 1000)
  }

  @Test(arguments: RingKind.allCases)
  func `a full ring hands the packet back`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.transmitQueue(0)
    var batch = PacketBatch(capacity: 100)
    for i in 0..<100 { batch.append(try card.pool.packet(virtioFrame(i))) }
    #expect(try queue.transmit(&batch) == 64)
    #expect(batch.count == 36)
    #expect(try queue.transmit(&batch) == 0)
    #expect(try queue.transmit(card.pool.packet(virtioFrame(0))) != nil)
    #expect(card.model.sendAll() == (0..<64).map { virtioFrame($0) })
    #expect(try queue.transmit(&batch) == 36)
  }

  @Test(arguments: RingKind.allCases)
  func `packets of several pools go home each to its own`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    let other = try Mempool(domain: card.domain, buffers: 32)
    var queue = try card.device.transmitQueue(0)
    for i in 0..<20 {
      let pool = i % 3 == 0 ? other : card.pool
      #expect(try queue.transmit(pool.packet(virtioFrame(i))) == nil)
    }
    #expect(card.model.sendAll().count == 20)
    #expect(try queue.reclaim() == 0)
    #expect(card.pool.available == 256)
    #expect(other.available == 32)
  }

  @Test(arguments: RingKind.allCases)
  func `packets that were never sent are home when queue and card are gone`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    do {
      var queue = try card.device.transmitQueue(0)
      for i in 0..<10 { #expect(try queue.transmit(card.pool.packet(virtioFrame(i))) == nil) }
      #expect(card.pool.available == 246)
    }
    #expect(card.pool.available == 256)
  }

  @Test(arguments: RingKind.allCases)
  func `five packets may be done with in each of their 120 orders`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.transmitQueue(0)
    let transmit = card.model.queues[1]
    for order in permutations(5) {
      for i in order { #expect(try queue.transmit(card.pool.packet(virtioFrame(i))) == nil) }
      let chains = order.compactMap { _ in card.model.take(transmit) }
      for i in order { card.model.use(chains[i], written: 0, in: transmit) }
      #expect(try queue.reclaim() == 0)
      #expect(card.pool.available == 256)
    }
  }

  // MARK: - Devices that lie

  @Test(arguments: RingKind.allCases, [10, 63, 64, 0x7FFF, 0xFFFF] as [UInt32])
  func `an identifier that is not in flight breaks the queue`(kind: RingKind, id: UInt32) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    do {
      var queue = try card.device.transmitQueue(0)
      for i in 0..<10 { #expect(try queue.transmit(card.pool.packet(virtioFrame(i))) == nil) }
      card.model.use(id: id, length: 0, in: card.model.queues[1])
      #expect { _ = try queue.reclaim() } throws: { isMisbehaved($0) }
      var batch = PacketBatch(capacity: 1)
      batch.append(try card.pool.packet(virtioFrame(0)))
      #expect { try queue.transmit(&batch) } throws: { isMisbehaved($0) }
      #expect(batch.count == 1)
      #expect { _ = try queue.transmit(card.pool.packet(virtioFrame(0))) } throws: {
        isMisbehaved($0)
      }
    }
    #expect(card.pool.available == 256, "a buffer is lost, or there twice")
  }

  @Test(arguments: RingKind.allCases)
  func `an identifier that is done with twice breaks the queue`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    do {
      var queue = try card.device.transmitQueue(0)
      for i in 0..<10 { #expect(try queue.transmit(card.pool.packet(virtioFrame(i))) == nil) }
      let chain = try #require(card.model.take(card.model.queues[1]))
      card.model.use(chain, written: 0, in: card.model.queues[1])
      card.model.use(chain, written: 0, in: card.model.queues[1])
      #expect { _ = try queue.reclaim() } throws: { isMisbehaved($0) }
      #expect(card.pool.available == 256 - 9)
    }
    #expect(card.pool.available == 256, "a buffer is lost, or there twice")
  }

  @Test(arguments: [11, 64, 65, 0x8000, 0xFFFF] as [UInt16])
  func `an index beyond what is in flight breaks the queue`(index: UInt16) throws {
    let card = try VirtioCard()
    var queue = try card.device.transmitQueue(0)
    for i in 0..<10 { #expect(try queue.transmit(card.pool.packet(virtioFrame(i))) == nil) }
    card.model.store(index, to: card.model.queues[1].deviceArea + 2)
    #expect { _ = try queue.reclaim() } throws: { isMisbehaved($0) }
  }
}
