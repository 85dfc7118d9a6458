import Testing

@testable import DriverModels
@testable import Ixy

/// Both kinds of ring, behind the protocol that programs use.
enum RingKind: CaseIterable { case split, packed }

extension RingKind {
  /// What QEMU's device offers, with this kind of ring.
  var features: UInt64 { VirtioModel.usual | (self == .packed ? VirtioModel.packed : 0) }
}

@Suite struct VirtioReceiveTests {
  @Test(arguments: RingKind.allCases, [14, 15, 59, 60, 61, 1514, 1518])
  func `a frame arrives byte for byte`(kind: RingKind, size: Int) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 8)
    card.model.receive(virtioFrame(1, size: size))
    #expect(try queue.receive(into: &batch, max: 8) == 1)
    #expect(batch.frames() == [virtioFrame(1, size: size)])
    #expect(card.model.dma.violations == 0)
  }

  @Test(arguments: RingKind.allCases)
  func `frames arrive in order over many turns of the ring`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 64)
    var (sent, received) = (0, 0)
    // More than 65,536: the index of a split ring wraps.
    for round in 0..<5400 {
      for _ in 0..<(round % 29 + 1) where card.model.receive(virtioFrame(sent, size: 14)) {
        sent += 1
      }
      _ = try queue.receive(into: &batch, max: round % 41 + 1)
      batch.forEach { packet in
        if packet[5] != virtioFrame(received, size: 14)[5] { Issue.record("not frame \(received)") }
        received += 1
      }
      batch.removeAll()
    }
    #expect(sent > 65_600)
    while try queue.receive(into: &batch, max: 64) > 0 {
      received += batch.count
      batch.removeAll()
    }
    #expect(received == sent)
    #expect(card.device.statistics().receivedPackets == UInt64(sent))
    #expect(card.device.statistics().receivedBytes == UInt64(14 * sent))
  }

  @Test(arguments: RingKind.allCases)
  func `buffers may be used in any order`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 64)
    var random = SystemRandomNumberGenerator()
    var number = 0
    for _ in 0..<200 {
      var chains: [ModelChain] = []
      while chains.count < 40, let chain = card.model.take(card.model.queues[0]) {
        chains.append(chain)
      }
      chains.shuffle(using: &random)
      let first = number
      for chain in chains {
        card.model.receive(virtioFrame(number), into: chain)
        number += 1
      }
      #expect(try queue.receive(into: &batch, max: 64) == chains.count)
      #expect(batch.frames() == (first..<number).map { virtioFrame($0) })
      batch.removeAll()
    }
    #expect(card.pool.available == 256 - 64)
  }

  @Test(arguments: RingKind.allCases)
  func `an empty mempool leaves frames in the ring`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features), buffers: 70)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 64)
    for i in 0..<10 { card.model.receive(virtioFrame(i)) }
    #expect(try queue.receive(into: &batch, max: 64) == 6)
    #expect(try queue.receive(into: &batch, max: 64) == 0)
    batch.removeAll()
    #expect(try queue.receive(into: &batch, max: 64) == 4)
    #expect(batch.frames() == (6..<10).map { virtioFrame($0) })
  }

  @Test(arguments: RingKind.allCases)
  func `every buffer is home when queue and card are gone`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    do {
      var queue = try card.device.receiveQueue(0, mempool: card.pool)
      var batch = PacketBatch(capacity: 8)
      card.model.receive(virtioFrame(0))
      #expect(try queue.receive(into: &batch, max: 8) == 1)
      #expect(card.pool.available == 256 - 65)
    }
    #expect(card.pool.available == 256)
    #expect(card.model.deviceStatus == 0)
  }

  @Test func `a frame that arrives while a packed ring is looked at is received`() throws {
    let card = try VirtioCard(VirtioModel(offering: RingKind.packed.features))
    var queue = try card.device.takePackedReceiveQueue(0, mempool: card.pool)
    // The look before this one found nothing; nor does a whole frame come out as an odd one.
    card.model.receive(virtioFrame(5))
    guard case .packet(let packet) = queue.takeOdd() else {
      Issue.record("a good frame was dropped")
      return
    }
    #expect((0..<packet.count).map { packet[$0] } == virtioFrame(5))
    _ = consume packet
  }

  @Test(arguments: RingKind.allCases)
  func `five buffers may be used in each of their 120 orders`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 8)
    for order in permutations(5) {
      let chains = order.compactMap { _ in card.model.take(card.model.queues[0]) }
      for i in order { card.model.receive(virtioFrame(i), into: chains[i]) }
      #expect(try queue.receive(into: &batch, max: 8) == 5)
      #expect(batch.frames() == order.map { virtioFrame($0) })
      batch.removeAll()
      #expect(card.pool.available == 256 - 64)
    }
  }

  // MARK: - Devices that lie

  @Test func `a packed entry that is used out of its turn is not looked at`() throws {
    let card = try VirtioCard(VirtioModel(offering: RingKind.packed.features))
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 8)
    let ring = card.model.queues[0]
    // The first entry with the bits of another turn, and the third one before the others.
    for bits in [0x0000, 0x8000] as [UInt16] {
      card.model.store(bits, to: ring.descriptors + 14)
      #expect(try queue.receive(into: &batch, max: 8) == 0)
    }
    card.model.store(UInt16(0x8080), to: ring.descriptors + 2 * 16 + 14)
    #expect(try queue.receive(into: &batch, max: 8) == 0)
    #expect(card.device.statistics() == Statistics())
  }

  /// Makes one used entry, and says what the queue makes of the next two looks at it.
  private func outcome(
    _ kind: RingKind, buffers: Int = 256, _ lie: (VirtioModel) throws -> Void
  ) throws -> (first: Result<Int, any Error>, second: Result<Int, any Error>, Statistics) {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var results: [Result<Int, any Error>] = []
    do {
      var queue = try card.device.receiveQueue(0, mempool: card.pool)
      var batch = PacketBatch(capacity: 64)
      try lie(card.model)
      for _ in 0..<2 {
        do {
          results.append(.success(try queue.receive(into: &batch, max: 64)))
        } catch { results.append(.failure(error)) }
      }
    }
    #expect(card.pool.available == 256, "a buffer is lost, or there twice")
    return (results[0], results[1], card.device.statistics())
  }

  @Test(arguments: RingKind.allCases, [64, 65, 0x7FFF, 0xFFFF, 0x1_0000, 0xFFFF_FFFF] as [UInt32])
  func `an identifier outside the ring breaks the queue`(kind: RingKind, id: UInt32) throws {
    // A packed ring has 16 bits for it.
    let (first, second, _) = try outcome(kind) {
      $0.use(id: min(id, kind == .split ? id : 0xFFFF), length: 72, in: $0.queues[0])
    }
    #expect(throws: (any Error).self) { try first.get() }
    #expect(throws: (any Error).self) { try second.get() }
  }

  @Test(arguments: RingKind.allCases)
  func `an identifier that comes twice breaks the queue`(kind: RingKind) throws {
    let (first, second, _) = try outcome(kind) { model in
      let chain = try #require(model.take(model.queues[0]))
      model.receive(virtioFrame(0), into: chain)
      model.receive(virtioFrame(0), into: chain)
    }
    // The first one was right.
    #expect(try first.get() == 1)
    #expect { try second.get() } throws: { isMisbehaved($0) }
  }

  @Test(arguments: [65, 66, 0x7FFF, 0x8000, 0xFFFF] as [UInt16])
  func `an index that jumps further than the ring breaks the queue`(index: UInt16) throws {
    let (first, second, _) = try outcome(.split) { model in
      model.store(index, to: model.queues[0].deviceArea + 2)
    }
    #expect { try first.get() } throws: { isMisbehaved($0) }
    #expect { try second.get() } throws: { isMisbehaved($0) }
  }

  @Test(
    arguments: RingKind.allCases,
    [0, 1, 11, 12, 25, 12 + 1519, 12 + 2048, 12 + 2049, 0x7FFF_FFFF, 0xFFFF_FFFF] as [UInt32])
  func `a length that cannot be is dropped with the frame`(kind: RingKind, length: UInt32) throws {
    let (first, second, statistics) = try outcome(kind) { model in
      let chain = try #require(model.take(model.queues[0]))
      model.fill(chain, model.header())
      model.use(id: UInt32(chain.id), length: length, in: model.queues[0])
      model.receive(virtioFrame(7))
    }
    // The frame after it is received.
    #expect(try first.get() == 1)
    #expect(try second.get() == 0)
    #expect(statistics.receiveErrors == 1)
    #expect(statistics.receivedPackets == 1)
  }

  @Test(
    arguments: RingKind.allCases, [(1, 0), (0, 1), (0, 3), (0, 0x80), (3, 4)] as [(UInt8, UInt8)])
  func `a frame that wants a checksum or is a large segment is dropped`(
    kind: RingKind, header: (flags: UInt8, segmentation: UInt8)
  ) throws {
    let (first, _, statistics) = try outcome(kind) { model in
      let chain = try #require(model.take(model.queues[0]))
      let head = model.header(flags: header.flags, segmentation: header.segmentation)
      model.fill(chain, head + virtioFrame(0))
      model.use(chain, written: 72, in: model.queues[0])
    }
    #expect(try first.get() == 0)
    #expect(statistics.receiveErrors == 1)
  }

  @Test(arguments: RingKind.allCases)
  func `a frame whose checksum was found right is received`(kind: RingKind) throws {
    let (first, _, _) = try outcome(kind) { model in
      let chain = try #require(model.take(model.queues[0]))
      model.fill(chain, model.header(flags: 2) + virtioFrame(0))
      model.use(chain, written: 72, in: model.queues[0])
    }
    #expect(try first.get() == 1)
  }

  @Test(arguments: RingKind.allCases)
  func `a ring full of nonsense is dropped in one call`(kind: RingKind) throws {
    let (first, second, statistics) = try outcome(kind) { model in
      while let chain = model.take(model.queues[0]) {
        model.use(chain, written: 3, in: model.queues[0])
      }
    }
    #expect(try first.get() == 0)
    #expect(try second.get() == 0)
    #expect(statistics.receiveErrors == 64)
  }
}
