import Emulation
import Testing

@testable import Ixy

/// The ixgbe driver's interrupts, against the emulated card.
@Suite struct IxgbeInterruptTests {
  private let bench: IxgbeTestBench
  private let interrupts: DeviceInterrupts

  init() throws {
    bench = try IxgbeTestBench { $0.receiveQueues = 2 }
    interrupts = try bench.device.enableInterrupts(throttle: .zero)
    // What happened before the first enabling counts as signalled.
    for interrupt in interrupts.receive + [interrupts.link] { _ = interrupt.takeSignal() }
  }

  /// A frame arrives, and the card works.
  private func arrive(_ number: Int = 0) {
    bench.wire.incoming.append(frame(number))
    bench.settle()
  }

  @Test func `a frame signals the interrupt of its queue alone`() throws {
    let queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    for interrupt in interrupts.receive { interrupt.enable() }
    arrive()
    #expect(interrupts.receive.map { $0.takeSignal() } == [true, false])
    _ = consume queue
  }

  @Test func `an interrupt that is not enabled stays silent`() throws {
    let queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    arrive()
    #expect(!interrupts.receive[0].takeSignal())
    _ = consume queue
  }

  @Test func `an interrupt comes once until it is enabled again`() throws {
    let queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    interrupts.receive[0].enable()
    arrive()
    #expect(interrupts.receive[0].takeSignal())
    arrive()
    #expect(!interrupts.receive[0].takeSignal())
    _ = consume queue
  }

  @Test func `a frame that came while it was off signals when it is enabled`() throws {
    let queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    arrive()
    interrupts.receive[0].enable()
    bench.settle()
    #expect(interrupts.receive[0].takeSignal())
    _ = consume queue
  }

  @Test func `a link that goes signals the link's interrupt alone`() throws {
    for interrupt in interrupts.receive + [interrupts.link] { interrupt.enable() }
    // The link came up: also an event.
    bench.settle()
    _ = interrupts.link.takeSignal()
    interrupts.link.enable()
    bench.wire.isConnected = false
    bench.settle()
    #expect(interrupts.link.takeSignal())
    #expect(!interrupts.receive[0].takeSignal())
    #expect(try !bench.device.link().isUp)
  }

  @Test func `each link event after enabling is signalled`() throws {
    for round in 0..<4 {
      bench.settle()
      interrupts.link.enable()
      _ = interrupts.link.takeSignal()
      bench.wire.isConnected = round % 2 == 1
      bench.settle()
      #expect(interrupts.link.takeSignal())
    }
  }

  @Test(arguments: [0, 15, 16, 31, 32, 62])
  func `every queue up to 63 has a vector that can be enabled`(id: Int) throws {
    let bench = try IxgbeTestBench { $0.receiveQueues = 63 }
    let all = try bench.device.enableInterrupts(throttle: .zero)
    for interrupt in all.receive { _ = interrupt.takeSignal() }
    all.receive[id].enable()
    // EICS_EX: the card raises every vector by itself.
    bench.device.bar[Register<UInt32>(at: 0x00A90)] = .max
    bench.device.bar[Register<UInt32>(at: 0x00A94)] = .max
    bench.settle()
    #expect(all.receive.indices.filter { all.receive[$0].takeSignal() } == [id])
  }

  @Test func `64 queues leave no vector for the link`() throws {
    let bench = try IxgbeTestBench { $0.receiveQueues = 64 }
    #expect(throws: DeviceError.self) { try bench.device.enableInterrupts(throttle: .zero) }
  }

  @Test(arguments: [(0, 0), (1, 0), (2, 2), (25, 24), (1022, 1022), (5000, 1022)])
  func `the throttle is set in steps of 2 microseconds`(asked: Int, set: Int) throws {
    _ = try bench.device.enableInterrupts(throttle: .microseconds(asked))
    #expect(bench.device.bar[IxgbeRegister.eitr(1)].microseconds == set)
  }

  @Test func `a queue's vector leaves its neighbours' fields alone`() throws {
    // Queue 0 has byte 0, queue 1 byte 2 of the first IVAR.
    #expect(bench.device.bar[IxgbeRegister.ivar(0)] == 0x0081_0080)
  }

  @Test(arguments: [InterruptKind.msi, .intx])
  func `a single interrupt stands for the queue and the link`(kind: InterruptKind) throws {
    let model = try NIC82599(wire: bench.wire, mac: MACAddress(bits: 0x02_1B_21_00_00_02))
    let pci = FewInterrupts(InProcessDevice(model), kind)
    var configuration = DeviceConfiguration()
    configuration.ringEntries = 64
    let device = try IxgbeDevice(pci, domain: bench.domain, configuration: configuration)
    let interrupts = try device.enableInterrupts(throttle: .zero)
    #expect(interrupts.kind == kind && interrupts.isShared)
    let queue = try device.takeReceiveQueue(0, mempool: bench.pool)
    while model.step() > 0 {}
    for round in 0..<3 {
      interrupts.link.enable()
      _ = interrupts.link.takeSignal()
      if round == 1 {
        bench.wire.isConnected = false
      } else {
        bench.wire.incoming.append(frame(round))
      }
      if round == 2 { bench.wire.isConnected = true }
      while model.step() > 0 {}
      #expect(interrupts.link.takeSignal(), "round \(round)")
    }
    _ = consume queue
  }
}

/// A card whose other interrupts are hidden.
private final class FewInterrupts: InterruptingDevice {
  private let inner: InProcessDevice
  private let kind: InterruptKind

  init(_ inner: InProcessDevice, _ kind: InterruptKind) {
    self.inner = inner
    self.kind = kind
  }

  var name: String { inner.name }
  func bar(_ index: Int) throws(DeviceError) -> BAR { try inner.bar(index) }
  func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    try inner.readConfig(offset, width: width)
  }
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    try inner.writeConfig(value, to: offset, width: width)
  }
  func attach(to domain: DMADomain) throws(DeviceError) { try inner.attach(to: domain) }
  func interruptCount(_ kind: InterruptKind) throws(DeviceError) -> Int {
    kind == self.kind ? 1 : 0
  }
  func setInterrupts(_ kind: InterruptKind, eventFDs: [Int32]) throws(DeviceError) {
    try inner.setInterrupts(kind, eventFDs: eventFDs)
  }
  func unmaskINTx() throws(DeviceError) { try inner.unmaskINTx() }
}
