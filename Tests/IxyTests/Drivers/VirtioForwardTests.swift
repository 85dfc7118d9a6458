import Testing

@testable import DriverModels
@testable import Ixy

@Suite struct VirtioForwardTests {
  @Test func `the fused forward of split rings drops and sends as it is told`() throws {
    let card = try VirtioCard(VirtioModel(offering: RingKind.split.features))
    var receiver = try card.device.takeSplitReceiveQueue(0, mempool: card.pool)
    var transmitter = try card.device.takeSplitTransmitQueue(0)
    var (number, sent) = (0, 0)
    for _ in 0..<200 {
      for _ in 0..<40 {
        card.model.receive(virtioFrame(number))
        number += 1
      }
      var seen = 0
      _ = try receiver.forward(to: &transmitter, max: 64) { packet in
        seen += 1
        packet[0] = 9
        return seen % 4 == 0 ? .drop : .send
      }
      #expect(seen == 40)
      for frame in card.model.sendAll() {
        #expect(frame[0] == 9)
        sent += 1
      }
    }
    #expect(sent == number / 4 * 3)
    _ = try transmitter.reclaim()
    #expect(card.pool.available == 256 - 64)
  }

  @Test func `the fused forward of packed rings drops and sends as it is told`() throws {
    let card = try VirtioCard(VirtioModel(offering: RingKind.packed.features))
    var receiver = try card.device.takePackedReceiveQueue(0, mempool: card.pool)
    var transmitter = try card.device.takePackedTransmitQueue(0)
    var (number, sent) = (0, 0)
    for _ in 0..<200 {
      for _ in 0..<40 {
        card.model.receive(virtioFrame(number))
        number += 1
      }
      var seen = 0
      _ = try receiver.forward(to: &transmitter, max: 64) { packet in
        seen += 1
        packet[0] = 9
        return seen % 4 == 0 ? .drop : .send
      }
      #expect(seen == 40)
      for frame in card.model.sendAll() {
        #expect(frame[0] == 9)
        sent += 1
      }
    }
    #expect(sent == number / 4 * 3)
    _ = try transmitter.reclaim()
    #expect(card.pool.available == 256 - 64)
  }

  @Test func `the fused forward receives no more than can be sent`() throws {
    let card = try VirtioCard(VirtioModel(offering: RingKind.split.features))
    var receiver = try card.device.takeSplitReceiveQueue(0, mempool: card.pool)
    var transmitter = try card.device.takeSplitTransmitQueue(0)
    var total = 0
    for _ in 0..<3 {
      for i in 0..<30 { card.model.receive(virtioFrame(i)) }
      total += try receiver.forward(to: &transmitter, max: 64) { _ in .send }
    }
    #expect(total == 64)
    #expect(card.model.sendAll().count == 64)
    #expect(try receiver.forward(to: &transmitter, max: 64) { _ in .send } == 26)
  }

  @Test func `the fused forward stops at what a device must not do`() throws {
    let card = try VirtioCard(VirtioModel(offering: RingKind.packed.features))
    do {
      var receiver = try card.device.takePackedReceiveQueue(0, mempool: card.pool)
      var transmitter = try card.device.takePackedTransmitQueue(0)
      card.model.receive(virtioFrame(0))
      card.model.use(id: 500, length: 72, in: card.model.queues[0])
      #expect(try receiver.forward(to: &transmitter, max: 64) { _ in .send } == 1)
      #expect { try receiver.forward(to: &transmitter, max: 64) { _ in .send } } throws: {
        isMisbehaved($0)
      }
    }
    #expect(card.pool.available == 256)
  }

  @Test func `a packed entry that was not made available again is not looked at`() throws {
    let card = try VirtioCard(VirtioModel(offering: RingKind.packed.features))
    var receiver = try card.device.takePackedReceiveQueue(0, mempool: card.pool)
    var transmitter = try card.device.takePackedTransmitQueue(0)
    for i in 0..<64 { card.model.receive(virtioFrame(i)) }
    var seen = 0
    let count = try receiver.forward(to: &transmitter, max: 128) { packet in
      seen += 1
      // Once the whole ring was received, the device uses its first entry for the second time.
      if seen == 64 { card.model.use(id: 0, length: 72, in: card.model.queues[0]) }
      return .drop
    }
    #expect(count == 64)
    #expect(seen == 64)
    #expect(card.pool.available == 256 - 64)
  }
}
