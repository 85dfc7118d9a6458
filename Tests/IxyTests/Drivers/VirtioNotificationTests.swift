import Testing

@testable import DriverModels
@testable import Ixy

@Suite struct VirtioNotificationTests {
  /// Sends batches of 10, and says how many notifications each took.
  private func notifications(
    _ model: VirtioModel, before batch: Int, _ prepare: (VirtioModel) -> Void
  ) throws -> [Int] {
    let card = try VirtioCard(model)
    var queue = try card.device.transmitQueue(0)
    var counts: [Int] = []
    for round in 0..<4 {
      if round == batch { prepare(model) }
      var packets = PacketBatch(capacity: 10)
      for i in 0..<10 { packets.append(try card.pool.packet(virtioFrame(i))) }
      let before = model.notifications[1]
      _ = try queue.transmit(&packets)
      counts.append(model.notifications[1] - before)
      _ = model.sendAll()
    }
    return counts
  }

  @Test(arguments: RingKind.allCases)
  func `a batch takes one notification`(kind: RingKind) throws {
    let model = VirtioModel(offering: kind.features)
    #expect(try notifications(model, before: 0) { _ in } == [1, 1, 1, 1])
  }

  @Test(arguments: RingKind.allCases)
  func `a device that wants none gets none`(kind: RingKind) throws {
    let model = VirtioModel(offering: kind.features)
    let counts = try notifications(model, before: 1) { model in
      // Split: flags of the used ring. Packed: flags of the device's event area.
      model.store(UInt16(1), to: model.queues[1].deviceArea + (kind == .packed ? 2 : 0))
    }
    #expect(counts == [1, 0, 0, 0])
  }

  @Test(arguments: [(9, 1), (10, 1), (15, 1), (19, 1), (20, 0), (0, 0), (0xFFFF, 0)])
  func `a split ring notifies at the entry that the device names`(
    event: Int, notified: Int
  ) throws {
    let model = VirtioModel(offering: VirtioModel.usual | VirtioModel.events)
    let counts = try notifications(model, before: 1) { model in
      let queue = model.queues[1]
      // The second batch has entries 10 to 19; entry 9 was the last of the first.
      let area = queue.deviceArea + 4 + 8 * UInt64(queue.size)
      model.store(UInt16(truncatingIfNeeded: event), to: area)
    }
    let expected = event == 9 ? 0 : notified
    #expect(counts[1] == expected)
  }

  @Test func `a packed ring is used without the event index`() throws {
    let model = VirtioModel(offering: RingKind.packed.features | VirtioModel.events)
    // QEMU would wait at an entry that was available long ago.
    let counts = try notifications(model, before: 0) { model in
      model.store(UInt16(0x8000), to: model.queues[1].deviceArea)
      model.store(UInt16(2), to: model.queues[1].deviceArea + 2)
    }
    #expect(model.accepted & VirtioModel.events == 0)
    #expect(counts == [1, 1, 1, 1])
  }

  @Test(arguments: RingKind.allCases)
  func `receiving a batch takes one notification`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    #expect(card.model.notifications[0] == 1)
    for i in 0..<20 { card.model.receive(virtioFrame(i)) }
    var batch = PacketBatch(capacity: 64)
    #expect(try queue.receive(into: &batch, max: 64) == 20)
    #expect(card.model.notifications[0] == 2)
    batch.removeAll()
    #expect(try queue.receive(into: &batch, max: 64) == 0)
    #expect(card.model.notifications[0] == 2)
  }
}
