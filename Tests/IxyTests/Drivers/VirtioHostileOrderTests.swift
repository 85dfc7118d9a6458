import Testing

@testable import DriverModels
@testable import Ixy

/// Devices that lie about one of several buffers, at each place of each order in which they use them.
@Suite struct VirtioHostileOrderTests {
  /// What is wrong with one frame, which is dropped and counted.
  enum BadFrame: CaseIterable {
    case shorterThanHeader, headerOnly, longerThanBuffer, allOnes, wantsChecksum, isLargeSegment

    func use(_ chain: ModelChain, _ model: VirtioModel) {
      let (flags, segmentation): (UInt8, UInt8) =
        self == .wantsChecksum ? (1, 0) : self == .isLargeSegment ? (0, 1) : (0, 0)
      model.fill(chain, model.header(flags: flags, segmentation: segmentation) + virtioFrame(0))
      let length: UInt32 =
        switch self {
        case .shorterThanHeader: 3
        case .headerOnly: 12
        case .longerThanBuffer: 12 + 2049
        case .allOnes: .max
        case .wantsChecksum, .isLargeSegment: 72
        }
      model.use(id: UInt32(chain.id), length: length, in: model.queues[0])
    }
  }

  /// What no device may say of a ring, which is broken from then on.
  enum BrokenRule: CaseIterable {
    case outsideTheRing, allOnes, repeated, indexJump

    /// Breaks the rule after the entries of `before` were used; false where it cannot be broken.
    func isBroken(in queue: ModelQueue, after before: [ModelChain], _ model: VirtioModel) -> Bool {
      switch self {
      case .outsideTheRing: model.use(id: 64, length: 72, in: queue)
      case .allOnes: model.use(id: .max, length: 72, in: queue)
      case .repeated:
        guard let last = before.last else { return false }
        model.use(last, written: 72, in: queue)
      case .indexJump:
        if model.isPacked { return false }
        model.store(queue.used &+ 65, to: queue.deviceArea + 2)
      }
      return true
    }
  }

  @Test(arguments: RingKind.allCases, BadFrame.allCases)
  func `a bad frame at any place of any order is dropped alone`(
    kind: RingKind, lie: BadFrame
  ) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 8)
    var bad: UInt64 = 0
    for order in permutations(4) {
      for place in 0..<4 {
        let chains = order.compactMap { _ in card.model.take(card.model.queues[0]) }
        for (i, number) in order.enumerated() {
          if i == place {
            lie.use(chains[number], card.model)
          } else {
            card.model.receive(virtioFrame(number), into: chains[number])
          }
        }
        #expect(try queue.receive(into: &batch, max: 8) == 3)
        var expected = order
        expected.remove(at: place)
        #expect(batch.frames() == expected.map { virtioFrame($0) })
        batch.removeAll()
        bad += 1
        #expect(card.device.statistics().receiveErrors == bad)
        #expect(card.pool.available == 256 - 64)
      }
    }
  }

  /// Runs `body` on a fresh card for each place in each order of three completions; then every buffer is home.
  private func everyPlace(
    _ kind: RingKind, _ body: (VirtioCard, [Int], Int) throws -> Void
  ) throws {
    for order in permutations(3) {
      for place in 0...3 {
        let card = try VirtioCard(VirtioModel(offering: kind.features))
        try body(card, order, place)
        #expect(card.pool.available == 256, "a buffer is lost, or there twice")
      }
    }
  }

  @Test(arguments: RingKind.allCases, BrokenRule.allCases)
  func `a receive ring whose rules are broken anywhere is an error`(
    kind: RingKind, lie: BrokenRule
  ) throws {
    try everyPlace(kind) { card, order, place in
      var queue = try card.device.receiveQueue(0, mempool: card.pool)
      var batch = PacketBatch(capacity: 8)
      let chains = order.compactMap { _ in card.model.take(card.model.queues[0]) }
      let before = order.prefix(place).map { chains[$0] }
      for chain in before { card.model.receive(virtioFrame(place), into: chain) }
      if !lie.isBroken(in: card.model.queues[0], after: before, card.model) { return }
      // What came before it is received, unless the number of all is wrong.
      if place > 0, lie != .indexJump {
        #expect(try queue.receive(into: &batch, max: 8) == place)
      }
      for _ in 0..<2 {
        #expect { try queue.receive(into: &batch, max: 8) } throws: { isMisbehaved($0) }
      }
    }
  }

  @Test(arguments: RingKind.allCases, BrokenRule.allCases)
  func `a transmit ring whose rules are broken anywhere is an error`(
    kind: RingKind, lie: BrokenRule
  ) throws {
    try everyPlace(kind) { card, order, place in
      var queue = try card.device.transmitQueue(0)
      for i in 0..<5 { #expect(try queue.transmit(card.pool.packet(virtioFrame(i))) == nil) }
      let chains = order.compactMap { _ in card.model.take(card.model.queues[1]) }
      let before = order.prefix(place).map { chains[$0] }
      for chain in before { card.model.use(chain, written: 0, in: card.model.queues[1]) }
      if !lie.isBroken(in: card.model.queues[1], after: before, card.model) { return }
      for _ in 0..<2 {
        #expect { _ = try queue.reclaim() } throws: { isMisbehaved($0) }
      }
    }
  }
}
