import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

/// Filters and interrupts of the vmxnet3 driver.
@Suite struct Vmxnet3ControlTests {
  /// Which of these frames the card receives, by their place; filters are set before or after the first queue.
  private func received(
    _ frames: [[UInt8]], isEarly: Bool, setUp: (any FrameFilter) throws -> Void
  ) throws -> [Int] {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    let filter = try #require(bench.device as? any FrameFilter)
    if isEarly { try setUp(filter) }
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    if !isEarly { try setUp(filter) }
    var batch = PacketBatch(capacity: 64)
    model.arriving = frames
    _ = model.step()
    _ = try queue.receive(into: &batch, max: 64)
    let seen = batch.takeFrames()
    #expect(model.violations.isEmpty)
    return frames.indices.filter { seen.contains(frames[$0]) }
  }

  private func addressed() throws -> [[UInt8]] {
    try [
      "52:54:00:12:34:56", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:07", "01:00:5e:00:00:fb",
      "01:00:5e:01:02:03",
    ].map { text in
      let address = try #require(MACAddress(text))
      return (0..<6).map { address[$0] } + testFrame(1)[6...]
    }
  }

  @Test(arguments: [true, false]) func `at first its own and broadcast frames come`(
    isEarly: Bool
  ) throws {
    #expect(try received(addressed(), isEarly: isEarly) { _ in } == [0, 1])
  }

  @Test(arguments: [true, false]) func `promiscuous mode lets all frames in`(isEarly: Bool) throws {
    let all = try received(addressed(), isEarly: isEarly) { try $0.setPromiscuous(true) }
    #expect(all == [0, 1, 2, 3, 4])
    let again = try received(addressed(), isEarly: isEarly) {
      try $0.setPromiscuous(true)
      try $0.setPromiscuous(false)
    }
    #expect(again == [0, 1])
  }

  @Test(arguments: [true, false]) func `the multicast groups that are asked for come`(
    isEarly: Bool
  ) throws {
    let group = try #require(MACAddress("01:00:5e:00:00:fb"))
    let other = try #require(MACAddress("01:00:5e:01:02:03"))
    let changed = try received(addressed(), isEarly: isEarly) {
      try $0.setMulticast([group])
      try $0.setMulticast([other])
    }
    #expect(changed == [0, 1, 4])
    let none = try received(addressed(), isEarly: isEarly) {
      try $0.setMulticast([group, other])
      try $0.setMulticast([])
      #expect(throws: DeviceError.self) { [device = $0] in
        try device.setMulticast([MACAddress](repeating: group, count: 1025))
      }
    }
    #expect(none == [0, 1])
  }

  @Test(arguments: [true, false]) func `another address takes the place of the card's own`(
    isEarly: Bool
  ) throws {
    let address = try #require(MACAddress("02:00:00:00:00:07"))
    let seen = try received(addressed(), isEarly: isEarly) {
      try $0.setMACAddress(address)
      #expect($0.macAddress == address)
      #expect(throws: DeviceError.self) { [device = $0] in
        try device.setMACAddress(MACAddress(bits: 0xFFFF_FFFF_FFFF))
      }
    }
    #expect(seen == [1, 2])
  }

  @Test func `a card that is opened again has its own address`() throws {
    let model = Vmxnet3Model()
    do {
      let bench = try DriverBench(model)
      let filter = try #require(bench.device as? any FrameFilter)
      try filter.setMACAddress(try #require(MACAddress("02:00:00:00:00:07")))
      let queue = try bench.device.transmitQueue(0)
      _ = consume queue
    }
    #expect(model.address != model.ownAddress, "the card keeps it over a reset")
    let again = try DriverBench(model)
    #expect(again.device.macAddress == MACAddress("52:54:00:12:34:56"))
    #expect(model.violations.isEmpty)
  }

  @Test(arguments: [true, false]) func `the VLANs that are asked for come with their tags`(
    isEarly: Bool
  ) throws {
    let frames =
      [testFrame(0)]
      + [1, 31, 32, 4094].map { vlan in
        var frame = testFrame(2, length: 64, type: 0x8100)
        (frame[14], frame[15]) = (UInt8(vlan >> 8), UInt8(vlan & 0xFF))
        return frame
      }
    #expect(try received(frames, isEarly: isEarly) { _ in } == [0, 1, 2, 3, 4])
    let some = try received(frames, isEarly: isEarly) { try $0.setVLANs([1, 32, 4094]) }
    #expect(some == [0, 1, 3, 4])
    let all = try received(frames, isEarly: isEarly) {
      try $0.setVLANs([1])
      try $0.setVLANs(nil)
      #expect(throws: DeviceError.self) { [device = $0] in try device.setVLANs([4096]) }
    }
    #expect(all == [0, 1, 2, 3, 4])
  }

  // MARK: - Interrupts

  @Test func `each queue has an interrupt of its own`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model) { $0.receiveQueues = 2 }
    let interrupts = try bench.device.enableInterrupts(throttle: .zero)
    #expect(interrupts.kind == .msix && !interrupts.isShared)
    var first = try bench.device.receiveQueue(0, mempool: bench.pool)
    var second = try bench.device.receiveQueue(1, mempool: bench.pool)
    let tx = try bench.device.transmitQueue(0)
    var batch = PacketBatch(capacity: 64)
    let all = interrupts.receive + [interrupts.link]
    for interrupt in all {
      _ = interrupt.takeSignal()
      interrupt.enable()
    }
    for flow in 0..<20 {
      model.arriving = [tcpFrame(flow: flow)]
      _ = model.step()
      let counts = [
        try first.receive(into: &batch, max: 64), try second.receive(into: &batch, max: 64),
      ]
      batch.removeAll()
      #expect(all.map { $0.takeSignal() } == [counts[0] > 0, counts[1] > 0, false])
      for interrupt in interrupts.receive { interrupt.enable() }
    }
    #expect(model.violations.isEmpty)
    _ = consume tx
  }

  @Test func `an interrupt comes once until it is enabled again`() throws {
    let model = Vmxnet3Model()
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
    #expect(throws: DeviceError.self) {
      _ = try bench.device.enableInterrupts(throttle: .zero)
    }
    _ = consume queue
  }

  @Test(arguments: [InterruptKind.msix, .msi, .intx])
  func `a change of the link is an interrupt, and its event is taken back`(
    kind: InterruptKind
  ) throws {
    let model = Vmxnet3Model()
    model.interruptCounts = (1, kind == .intx ? 0 : 1, kind == .msix ? 25 : 0)
    let bench = try DriverBench(model)
    let interrupts = try bench.device.enableInterrupts(throttle: .zero)
    #expect(interrupts.kind == kind)
    let queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    _ = interrupts.link.takeSignal()
    interrupts.link.enable()
    for isPlugged in [false, true, false] {
      #expect(!interrupts.link.takeSignal())
      model.isPlugged = isPlugged
      #expect(interrupts.link.takeSignal())
      #expect(model.events == 4)
      #expect(try bench.device.link().isUp == isPlugged)
      interrupts.link.enable()
      #expect(model.events == 0)
    }
    _ = consume queue
  }

  @Test(arguments: [InterruptKind.msi, .intx])
  func `one interrupt does for a queue and the link`(kind: InterruptKind) throws {
    let model = Vmxnet3Model()
    model.interruptCounts = (1, kind == .msi ? 1 : 0, 0)
    let bench = try DriverBench(model)
    let interrupts = try bench.device.enableInterrupts(throttle: .zero)
    #expect(interrupts.isShared)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 8)
    _ = interrupts.link.takeSignal()
    interrupts.link.enable()
    for _ in 0..<3 {
      model.arriving = [testFrame(0)]
      _ = model.step()
      #expect(interrupts.link.takeSignal())
      #expect(try queue.receive(into: &batch, max: 8) == 1)
      batch.removeAll()
      interrupts.link.enable()
      #expect(!interrupts.link.takeSignal())
    }
  }

  @Test(arguments: [InterruptKind.msix, .msi, .intx])
  func `a card is let go with its interrupts`(kind: InterruptKind) throws {
    let model = Vmxnet3Model()
    model.interruptCounts = (1, kind == .intx ? 0 : 1, kind == .msix ? 25 : 0)
    weak var interrupt: Interrupt?
    weak var device: Vmxnet3Device?
    do {
      let bench = try DriverBench(model)
      let interrupts = try bench.device.enableInterrupts(throttle: .zero)
      interrupt = interrupts.receive[0]
      device = bench.device as? Vmxnet3Device
      #expect(interrupts.kind == kind && interrupt != nil && device != nil)
    }
    #expect(interrupt == nil)
    #expect(device == nil)
    #expect(!model.isBusMaster)
  }

  @Test func `without interrupts the card is told to be silent`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    let queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    #expect(model.read32(model.shared + 108) == 1)
    _ = consume queue
  }

  @Test func `a card without a vector for sent frames is refused`() throws {
    let model = Vmxnet3Model()
    model.interruptCounts.msix = 2
    let bench = try DriverBench(model)
    #expect(throws: DeviceError.self) { _ = try bench.device.enableInterrupts(throttle: .zero) }
  }
}
