import Testing

@testable import DriverModels
@testable import Ixy

@Suite struct VirtioInterruptTests {
  /// Split and packed rings, with and without events.
  static let offers = RingKind.allCases.flatMap { [$0.features, $0.features | VirtioModel.events] }

  @Test(arguments: offers)
  func `an interrupt comes for the first frame after it was enabled`(features: UInt64) throws {
    let card = try VirtioCard(VirtioModel(offering: features))
    let interrupts = try card.device.enableInterrupts(throttle: .zero)
    #expect(interrupts.kind == .msix && !interrupts.isShared)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 64)
    let interrupt = interrupts.receive[0]
    card.model.receive(virtioFrame(0))
    #expect(try queue.receive(into: &batch, max: 64) == 1)
    _ = interrupt.takeSignal()
    // More than a turn of the ring.
    for i in 0..<150 {
      interrupt.enable()
      #expect(try queue.receive(into: &batch, max: 64) == 0)
      #expect(!interrupt.takeSignal(), "nothing has come")
      card.model.receive(virtioFrame(i))
      #expect(interrupt.takeSignal())
      #expect(try queue.receive(into: &batch, max: 64) == 1)
      batch.removeAll()
      card.model.receive(virtioFrame(i))
      #expect(!interrupt.takeSignal(), "it was not enabled again")
      #expect(try queue.receive(into: &batch, max: 64) == 1)
      batch.removeAll()
    }
    #expect(!interrupts.link.takeSignalAfterFirst())
  }

  @Test(arguments: offers)
  func `what came before an interrupt was enabled is found by the look after it`(
    features: UInt64
  ) throws {
    let card = try VirtioCard(VirtioModel(offering: features))
    let interrupts = try card.device.enableInterrupts(throttle: .zero)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 64)
    for i in 0..<3 { card.model.receive(virtioFrame(i)) }
    _ = interrupts.receive[0].takeSignal()
    interrupts.receive[0].enable()
    #expect(try queue.receive(into: &batch, max: 64) == 3)
    #expect(!interrupts.receive[0].takeSignal())
  }

  @Test(arguments: RingKind.allCases)
  func `each queue has a vector of its own`(kind: RingKind) throws {
    let features = kind.features | VirtioModel.multiqueue
    let card = try VirtioCard(
      VirtioModel(offering: features, pairs: 3), pairs: 3, buffers: 512)
    let interrupts = try card.device.enableInterrupts(throttle: .zero)
    var queues: [Int: Bool] = [:]
    let second = try card.device.receiveQueue(1, mempool: card.pool)
    let third = try card.device.receiveQueue(2, mempool: card.pool)
    for interrupt in interrupts.receive { _ = interrupt.takeSignal() }
    for id in 1...2 {
      interrupts.receive[id].enable()
      card.model.receive(virtioFrame(0), queue: 2 * id)
      for other in 0..<3 { queues[other] = interrupts.receive[other].takeSignal() }
      #expect(queues == [0: false, 1: id == 1, 2: id == 2])
    }
    _ = consume second
    _ = consume third
  }

  @Test(arguments: RingKind.allCases, [0, 4])
  func `a change of the link is an interrupt`(kind: RingKind, vectors: Int) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features, vectors: vectors))
    let link = try card.device.enableInterrupts(throttle: .zero).link
    _ = link.takeSignal()
    link.enable()
    for isUp in [false, true, false] {
      #expect(!link.takeSignal())
      card.model.setLink(isUp)
      #expect(link.takeSignal())
      #expect(try card.device.link().isUp == isUp)
      link.enable()
    }
  }

  @Test(arguments: [VirtioModel.Kind.legacy, .modern])
  func `a device without vectors interrupts by its line`(kind: VirtioModel.Kind) throws {
    let features = VirtioModel.usual | VirtioModel.anyLayout
    let card = try VirtioCard(VirtioModel(kind, offering: features, vectors: 0))
    #expect(card.model.config[5] & 4 != 0, "the line is used, and nobody has asked for it")
    let interrupts = try card.device.enableInterrupts(throttle: .zero)
    #expect(interrupts.kind == .intx && interrupts.isShared)
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 64)
    let interrupt = interrupts.receive[0]
    _ = interrupt.takeSignal()
    for i in 0..<10 {
      interrupt.enable()
      #expect(!interrupt.takeSignal())
      card.model.receive(virtioFrame(i))
      #expect(interrupt.takeSignal())
      #expect(card.model.interruptStatus == 1)
      #expect(try queue.receive(into: &batch, max: 64) == 1)
      batch.removeAll()
    }
    interrupt.enable()
    #expect(card.model.interruptStatus == 0, "the line is never taken back")
  }

  @Test func `a device that takes no vectors is polled`() throws {
    let model = VirtioModel()
    model.takesVectors = false
    let card = try VirtioCard(model)
    #expect { _ = try card.device.enableInterrupts(throttle: .zero) } throws: { isRefused($0) }
    // What was polled before still is.
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 64)
    model.receive(virtioFrame(0))
    #expect(try queue.receive(into: &batch, max: 64) == 1)
  }
}

extension Interrupt {
  /// Whether it came at all, beside the signal that each has before anybody has looked.
  fileprivate func takeSignalAfterFirst() -> Bool {
    _ = takeSignal()
    return takeSignal()
  }
}
