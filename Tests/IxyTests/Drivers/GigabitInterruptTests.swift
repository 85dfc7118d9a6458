import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

private let kinds: [GigabitModel.Kind] = [.e1000e, .igb]

/// Interrupts of the drivers for the 82574 and the 82576.
@Suite struct GigabitInterruptTests {
  @Test(arguments: kinds) func `each queue has an interrupt of its own`(
    kind: GigabitModel.Kind
  ) throws {
    let model = GigabitModel(kind)
    let bench = try DriverBench(model) { $0.receiveQueues = 2 }
    let interrupts = try bench.device.enableInterrupts(throttle: .zero)
    #expect(interrupts.kind == .msix && !interrupts.isShared)
    var first = try bench.device.receiveQueue(0, mempool: bench.pool)
    var second = try bench.device.receiveQueue(1, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    let all = interrupts.receive + [interrupts.link]
    for interrupt in all {
      _ = interrupt.takeSignal()
      interrupt.enable()
    }
    var seen = [0, 0]
    for flow in 0..<20 {
      model.arriving = [tcpFrame(flow: flow)]
      _ = model.step()
      let counts = [
        try first.receive(into: &batch, max: 64), try second.receive(into: &batch, max: 64),
      ]
      batch.removeAll()
      #expect(all.map { $0.takeSignal() } == [counts[0] > 0, counts[1] > 0, false])
      for i in 0..<2 {
        seen[i] += counts[i]
        interrupts.receive[i].enable()
      }
    }
    #expect(seen[0] > 3 && seen[1] > 3)
  }

  @Test(arguments: kinds) func `an interrupt comes once until it is enabled again`(
    kind: GigabitModel.Kind
  ) throws {
    let model = GigabitModel(kind)
    let bench = try DriverBench(model)
    let interrupts = try bench.device.enableInterrupts(throttle: .microseconds(20))
    let queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    let interrupt = interrupts.receive[0]
    _ = interrupt.takeSignal()
    model.arriving = [testFrame(0)]
    _ = model.step()
    #expect(!interrupt.takeSignal(), "not enabled yet")
    interrupt.enable()
    #expect(interrupt.takeSignal(), "what was held back")
    model.arriving = [testFrame(1)]
    _ = model.step()
    #expect(!interrupt.takeSignal(), "not enabled again")
    interrupt.enable()
    #expect(interrupt.takeSignal())
    interrupt.enable()
    #expect(!interrupt.takeSignal(), "nothing has come")
    _ = consume queue
  }

  @Test(arguments: kinds) func `a change of the link is an interrupt`(
    kind: GigabitModel.Kind
  ) throws {
    let model = GigabitModel(kind)
    let bench = try DriverBench(model)
    let interrupts = try bench.device.enableInterrupts(throttle: .zero)
    _ = interrupts.link.takeSignal()
    interrupts.link.enable()
    for isPlugged in [false, true, false] {
      #expect(!interrupts.link.takeSignal())
      model.isPlugged = isPlugged
      #expect(interrupts.link.takeSignal())
      #expect(try bench.device.link().isUp == isPlugged)
      interrupts.link.enable()
    }
  }

  @Test(arguments: kinds, [InterruptKind.msi, .intx])
  func `one interrupt does for a queue and the link`(
    kind: GigabitModel.Kind, interruptKind: InterruptKind
  ) throws {
    let model = GigabitModel(kind)
    model.interruptCounts = (1, interruptKind == .msi ? 1 : 0, 0)
    let bench = try DriverBench(model)
    let interrupts = try bench.device.enableInterrupts(throttle: .zero)
    #expect(interrupts.kind == interruptKind && interrupts.isShared)
    let queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    _ = interrupts.link.takeSignal()
    interrupts.link.enable()
    model.arriving = [testFrame(0)]
    _ = model.step()
    #expect(interrupts.link.takeSignal())
    interrupts.link.enable()
    #expect(!interrupts.link.takeSignal())
    model.isPlugged = false
    #expect(interrupts.link.takeSignal())
    interrupts.link.enable()
    #expect(!interrupts.link.takeSignal())
    model.isPlugged = true
    #expect(interrupts.link.takeSignal())
    _ = consume queue
  }

  @Test func `successors of the 82576 number their vectors in another way`() throws {
    let model = GigabitModel(.igb, deviceID: 0x1521)
    let bench = try DriverBench(model) { $0.receiveQueues = 8 }
    _ = try bench.device.enableInterrupts(throttle: .microseconds(100))
    #expect((0..<4).map { model[0x1700 + 4 * $0] } == [0x81_0080, 0x83_0082, 0x85_0084, 0x87_0086])
    #expect(model[0x1740] == 0x8800)
    #expect(model[0x1680] == 100 << 2)
    let other = GigabitModel(.igb)
    let otherBench = try DriverBench(other) { $0.receiveQueues = 8 }
    _ = try otherBench.device.enableInterrupts(throttle: .zero)
    #expect((0..<8).map { other[0x1700 + 4 * $0] } == (0..<8).map { 0x80 | $0 })
  }
}
