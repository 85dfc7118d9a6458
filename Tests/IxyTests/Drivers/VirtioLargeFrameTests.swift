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

  @Test(arguments: RingKind.allCases)
  func `large frames wait in the ring until large buffers come back`(kind: RingKind) throws {
    // There are as many large buffers as ring entries, 64; each frame takes two entries.
    let card = try card(kind)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var held = PacketBatch(capacity: 100)
    for round in 0..<3 {
      for i in 0..<30 { try receive(virtioFrame(30 * round + i, size: 3000), card.model) }
      #expect(try queue.receive(into: &held, max: 100) == (round < 2 ? 30 : 4))
    }
    #expect(try queue.receive(into: &held, max: 100) == 0)
    // One that needs no such buffer waits behind them: frames keep their order.
    card.model.receive(virtioFrame(90))
    #expect(try queue.receive(into: &held, max: 100) == 0)
    var next = 0
    // Those that come back are used again at once.
    for back in [1, 5, 40] {
      for _ in 0..<back {
        // Dropped at once.
        guard let packet = held.popFirst() else {
          Issue.record("only \(next) were held")
          return
        }
        let (size, byte) = (packet.count, packet[5])
        #expect(size == 3000 && byte == virtioFrame(next, size: 6)[5])
        next += 1
      }
      #expect(try queue.receive(into: &held, max: 100) == min(back, 21))
    }
    #expect(held.frames() == (next..<91).map { virtioFrame($0, size: $0 < 90 ? 3000 : 60) })
    held.removeAll()
    #expect(card.device.statistics().receiveErrors == 0)
    #expect(card.pool.available == 256 - 64)
  }

  @Test(arguments: RingKind.allCases)
  func `bad frames do not wait for large buffers`(kind: RingKind) throws {
    let card = try card(kind)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var held = PacketBatch(capacity: 100)
    for _ in 0..<4 {
      for i in 0..<16 { try receive(virtioFrame(i, size: 3000), card.model) }
      #expect(try queue.receive(into: &held, max: 100) == 16)
    }
    for _ in 0..<20 {
      // One that wants a checksum in two buffers, and one in none.
      let chains = (0..<2).compactMap { _ in card.model.take(card.model.queues[0]) }
      card.model.fill(chains[0], card.model.header(buffers: 2, flags: 1))
      for chain in chains { card.model.use(chain, written: 1500, in: card.model.queues[0]) }
      try receive(virtioFrame(0), card.model, claim: 0)
      #expect(try queue.receive(into: &held, max: 100) == 0)
    }
    #expect(card.device.statistics().receiveErrors == 40)
    card.model.receive(virtioFrame(7))
    #expect(try queue.receive(into: &held, max: 100) == 1)
    #expect(held.count == 65)
  }

  @Test func `a packed frame waits where the device has fewer buffers than it claims`() throws {
    let features = RingKind.packed.features | VirtioModel.mergeable
    let card = try VirtioCard(VirtioModel(offering: features), mtu: 9000)
    var receiver = try card.device.takePackedReceiveQueue(0, mempool: card.pool)
    var transmitter = try card.device.takePackedTransmitQueue(0)
    for i in 0..<2 { card.model.receive(virtioFrame(i)) }
    try receive(virtioFrame(2), card.model, claim: 64)
    for i in 3..<64 { card.model.receive(virtioFrame(i)) }
    var seen = 0
    for expected in [2, 0] {
      let count = try receiver.forward(to: &transmitter, max: 64) { _ in
        seen += 1
        // The first two entries again, before they are available again.
        if seen == 2 {
          for id in 0..<2 { card.model.use(id: UInt32(id), length: 72, in: card.model.queues[0]) }
        }
        return .drop
      }
      #expect(count == expected)
    }
    #expect(card.device.statistics().receiveErrors == 0)
  }
}
