import Testing

@testable import DriverModels
@testable import Ixy

@Suite struct VirtioLargeFrameTests {
  private func card(_ kind: RingKind, bufferSize: Int = 2048) throws -> VirtioCard {
    let model = VirtioModel(offering: kind.features | VirtioModel.mergeable)
    return try VirtioCard(model, mtu: 9000, bufferSize: bufferSize)
  }

  /// Spreads a frame over as many buffers as it takes.
  private func receive(_ frame: [UInt8], _ model: VirtioModel, claim: Int? = nil) throws {
    var rest = frame[...]
    let room = model.headerSize + 2048
    let count = (frame.count + model.headerSize + room - 1) / room
    for i in 0..<count {
      let chain = try #require(model.take(model.queues[0]))
      let head = i == 0 ? model.header(buffers: claim ?? count) : []
      let part = head + rest.prefix(chain.room - head.count)
      rest = rest.dropFirst(chain.room - head.count)
      model.fill(chain, part)
      model.use(chain, written: part.count, in: model.queues[0])
    }
  }

  @Test(arguments: RingKind.allCases, [60, 2048, 2049, 4000, 9018])
  func `a frame larger than a buffer is put together`(kind: RingKind, size: Int) throws {
    let card = try card(kind)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 32)
    for round in 0..<40 {
      try receive(virtioFrame(round, size: size), card.model)
      card.model.receive(
        virtioFrame(round), into: try #require(card.model.take(card.model.queues[0])))
      #expect(try queue.receive(into: &batch, max: 32) == 2)
      #expect(batch.frames() == [virtioFrame(round, size: size), virtioFrame(round)])
      batch.removeAll()
    }
    #expect(card.pool.available == 256 - 64)
    #expect(card.model.dma.violations == 0)
  }

  @Test(arguments: RingKind.allCases)
  func `a large frame arrives in a large buffer`(kind: RingKind) throws {
    let card = try card(kind, bufferSize: 10 * 1024)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 32)
    card.model.receive(virtioFrame(0, size: 9018))
    #expect(try queue.receive(into: &batch, max: 32) == 1)
    #expect(batch.frames() == [virtioFrame(0, size: 9018)])
  }

  @Test(arguments: RingKind.allCases, [0, 65, 0xFFFF])
  func `a number of buffers that cannot be is not believed`(kind: RingKind, claim: Int) throws {
    let card = try card(kind)
    do {
      var queue = try card.device.receiveQueue(0, mempool: card.pool)
      var batch = PacketBatch(capacity: 32)
      try receive(virtioFrame(0), card.model, claim: claim)
      if claim == 0 {
        #expect(try queue.receive(into: &batch, max: 32) == 0)
        #expect(card.device.statistics().receiveErrors == 1)
      } else {
        #expect { try queue.receive(into: &batch, max: 32) } throws: { isMisbehaved($0) }
      }
    }
    #expect(card.pool.available == 256)
  }

  @Test(arguments: RingKind.allCases, [2049, 9018])
  func `one buffer has no more than its size, whatever the MTU`(kind: RingKind, claim: Int) throws {
    let card = try card(kind)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 32)
    let model = card.model
    let chain = try #require(model.take(model.queues[0]))
    model.fill(chain, model.header(buffers: 1) + virtioFrame(0))
    model.use(chain, written: model.headerSize + claim, in: model.queues[0])
    #expect(try queue.receive(into: &batch, max: 32) == 0)
    #expect(card.device.statistics().receiveErrors == 1)
  }

  @Test(arguments: RingKind.allCases)
  func `a frame whose rest has not come waits for it`(kind: RingKind) throws {
    let card = try card(kind)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 32)
    let (model, frame) = (card.model, virtioFrame(0, size: 3000))
    let chains = (0..<2).map { _ in model.take(model.queues[0]) }
    let (first, second) = (try #require(chains[0]), try #require(chains[1]))
    model.fill(first, model.header(buffers: 2) + frame[..<2048])
    model.use(first, written: 12 + 2048, in: model.queues[0])
    #expect(try queue.receive(into: &batch, max: 32) == 0)
    model.fill(second, Array(frame[2048...]))
    model.use(second, written: 3000 - 2048, in: model.queues[0])
    #expect(try queue.receive(into: &batch, max: 32) == 1)
    #expect(batch.frames() == [frame])
  }

  @Test(arguments: RingKind.allCases)
  func `a frame longer than any may be is dropped with all of its buffers`(kind: RingKind) throws {
    let card = try card(kind)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 32)
    for _ in 0..<20 {
      try receive(virtioFrame(0, size: 9019), card.model)
      try drain()
    }
    func drain() throws { #expect(try queue.receive(into: &batch, max: 32) == 0) }
    try receive(virtioFrame(0, size: 9018), card.model)
    #expect(try queue.receive(into: &batch, max: 32) == 1)
    #expect(card.device.statistics().receiveErrors == 20)
  }

  @Test(arguments: RingKind.allCases)
  func `a large frame that names a buffer twice breaks the queue`(kind: RingKind) throws {
    let card = try card(kind)
    do {
      var queue = try card.device.receiveQueue(0, mempool: card.pool)
      var batch = PacketBatch(capacity: 32)
      let chain = try #require(card.model.take(card.model.queues[0]))
      card.model.fill(chain, card.model.header(buffers: 2))
      for _ in 0..<2 { card.model.use(chain, written: 1000, in: card.model.queues[0]) }
      #expect { try queue.receive(into: &batch, max: 32) } throws: { isMisbehaved($0) }
    }
    #expect(card.pool.available == 256)
  }
}
