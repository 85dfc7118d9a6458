import CFuzz
import Emulation
import Glibc

@testable import DriverModels
@testable import Ixy

/// How each driver is opened, and what its queues are.
enum Openers {
  static func ixgbe(
    _ pci: any PCIDevice, _ domain: DMADomain, _ configuration: DeviceConfiguration
  ) throws -> FuzzedDriver<IxgbeReceiveQueue, IxgbeTransmitQueue> {
    let card = try IxgbeDevice(pci, domain: domain, configuration: configuration)
    let takeReceiveQueue: (Int, Mempool) throws -> IxgbeReceiveQueue = { id, pool in
      // Where the others throw it traps: such a pool is a fault of the application's.
      guard pool.bufferSize >= configuration.maximumFrame else {
        throw DeviceError.refused("Receive", found: "buffers too small for a frame", advice: "")
      }
      return try card.takeReceiveQueue(id, mempool: pool)
    }
    return driver(card, takeReceiveQueue, card.takeTransmitQueue) { from, to, max in
      if max % 8 == 1 {
        from.forwardOne(to: &to, decide)
      } else {
        from.forward(to: &to, max: max, decide)
      }
    }
  }

  static func igb(
    _ pci: any PCIDevice, _ domain: DMADomain, _ configuration: DeviceConfiguration
  ) throws -> FuzzedDriver<GigabitReceiveQueue, GigabitTransmitQueue> {
    let card = try IgbDevice(pci, domain: domain, configuration: configuration)
    return driver(card, card.takeReceiveQueue, card.takeTransmitQueue, byBatch)
  }

  static func e1000e(
    _ pci: any PCIDevice, _ domain: DMADomain, _ configuration: DeviceConfiguration
  ) throws -> FuzzedDriver<GigabitReceiveQueue, GigabitTransmitQueue> {
    let card = try E1000eDevice(pci, domain: domain, configuration: configuration)
    return driver(card, card.takeReceiveQueue, card.takeTransmitQueue, byBatch)
  }

  static func vmxnet3(
    _ pci: any PCIDevice, _ domain: DMADomain, _ configuration: DeviceConfiguration
  ) throws -> FuzzedDriver<Vmxnet3ReceiveQueue, Vmxnet3TransmitQueue> {
    let card = try Vmxnet3Device(pci, domain: domain, configuration: configuration)
    return driver(card, card.takeReceiveQueue, card.takeTransmitQueue, byBatch)
  }

  static func virtioSplit(
    _ pci: any PCIDevice, _ domain: DMADomain, _ configuration: DeviceConfiguration
  ) throws -> FuzzedDriver<VirtioSplitReceiveQueue, VirtioSplitTransmitQueue> {
    var options = VirtioDevice.Options()
    options.usesPackedRings = false
    let card = try VirtioDevice(
      pci, domain: domain, configuration: configuration, options: options)
    return driver(card, card.takeSplitReceiveQueue, card.takeSplitTransmitQueue) { from, to, max in
      try from.forward(to: &to, max: max, decide)
    }
  }

  static func virtioPacked(
    _ pci: any PCIDevice, _ domain: DMADomain, _ configuration: DeviceConfiguration
  ) throws -> FuzzedDriver<VirtioPackedReceiveQueue, VirtioPackedTransmitQueue> {
    let card = try VirtioDevice(pci, domain: domain, configuration: configuration)
    return driver(card, card.takePackedReceiveQueue, card.takePackedTransmitQueue) {
      from, to, max in
      try from.forward(to: &to, max: max, decide)
    }
  }

  /// A driver of whose queues the first of each kind is used.
  private static func driver<
    Receiver: ReceiveQueue & ~Copyable, Transmitter: TransmitQueue & ~Copyable
  >(
    _ card: any EthernetDevice, _ receiver: @escaping (Int, Mempool) throws -> Receiver,
    _ transmitter: @escaping (Int) throws -> Transmitter,
    _ forward: @escaping (inout Receiver, inout Transmitter, Int) throws -> Void
  ) -> FuzzedDriver<Receiver, Transmitter> {
    FuzzedDriver(
      device: card, receiver: { try receiver(0, $0) }, transmitter: { try transmitter(0) },
      forward: forward)
  }

  /// Touches both ends of a frame, and drops half of them.
  private static func decide(_ packet: inout Packet) -> Verdict {
    packet[packet.count - 1] &+= packet[0]
    return packet[0] & 1 == 0 ? .send : .drop
  }

  /// For drivers without a fused forward.
  private static func byBatch(
    _ from: inout some ReceiveQueue & ~Copyable, _ to: inout some TransmitQueue & ~Copyable,
    _ max: Int
  ) throws {
    var batch = PacketBatch(capacity: 64)
    _ = try from.receive(into: &batch, max: max)
    _ = try to.transmit(&batch)
  }
}

/// Addresses from a counter that pass for the machine's own, which a legacy device needs.
final class PretendedPhysical: PhysicalAddressing {
  private let counted = CountedAddresses(MapperList())
  private var next: UInt64 = 2 << 20
  var space: Int { counted.space }
  var largestBlock: Int { counted.largestBlock }
  func makeFile(_ size: Int) throws(DeviceError) -> FileDescriptor { try counted.makeFile(size) }
  func place(_ file: borrowing FileDescriptor, size: Int) throws(DeviceError) -> UInt64 {
    defer { next += UInt64(size) }
    return next
  }
}

/// The runs of each driver: a function of their input, which return how often the card misbehaved.
enum DriverTargets {
  static func ixgbe(_ choices: Choices) throws -> Int {
    let wire = QueueWire()
    let model = try NIC82599(
      wire: wire, mac: MACAddress(bits: 0x5254_0012_3456),
      family: choices.pick([.i82599, .i82599, .x540, .x550]), sharesQueueRegisters: false)
    let rings = IntelRings(model, receive: 0x1000, transmit: 0x6000) { wire.arrive($0) }
    return try run(Openers.ixgbe, model, choices, rings)
  }

  static func ixgbeInPlace(_ choices: Choices) throws -> Int {
    let wire = QueueWire()
    let model = try NIC82599(
      wire: wire, mac: MACAddress(bits: 0x5254_0012_3456),
      family: choices.pick([.i82599, .x540, .x550]), sharesQueueRegisters: false)
    let card = HostileCard(model, choices, InPlaceRings(model) { wire.arrive($0) })
    var run = InPlaceRun(card)
    return try inSimulatedTime(card) { try run.run() }
  }

  static func igb(_ choices: Choices) throws -> Int {
    let model = GigabitModel(.igb, deviceID: choices.pick([0x10C9, 0x1521, 0x1533]))
    let rings = IntelRings(model, receive: 0xC000, transmit: 0xE000) { model.arrive($0) }
    return try run(Openers.igb, model, choices, rings)
  }

  static func e1000e(_ choices: Choices) throws -> Int {
    let model = GigabitModel(.e1000e)
    let rings = IntelRings(model, receive: 0x2800, transmit: 0x3800) { model.arrive($0) }
    return try run(Openers.e1000e, model, choices, rings)
  }

  static func vmxnet3(_ choices: Choices) throws -> Int {
    let model = Vmxnet3Model()
    return try run(Openers.vmxnet3, model, choices, Vmxnet3Rings(model))
  }

  static func virtioSplit(_ choices: Choices) throws -> Int {
    let model = VirtioModel(offering: VirtioModel.usual | features(choices))
    return try run(Openers.virtioSplit, model, choices, VirtioRings(model))
  }

  static func virtioPacked(_ choices: Choices) throws -> Int {
    let model = VirtioModel(offering: VirtioModel.usual | VirtioModel.packed | features(choices))
    return try run(Openers.virtioPacked, model, choices, VirtioRings(model))
  }

  static func virtioLegacy(_ choices: Choices) throws -> Int {
    let kind: VirtioModel.Kind = choices.isOdd(64) ? .transitional : .legacy
    let offered = VirtioModel.mac | VirtioModel.status | VirtioModel.control
    let model = VirtioModel(
      kind, offering: offered | VirtioModel.controlReceive | features(choices) & 0xFFFF_FFFF)
    let domain = DMADomain()
    domain.addressing = PretendedPhysical()
    return try run(Openers.virtioSplit, model, choices, VirtioRings(model), domain)
  }

  private static func features(_ choices: Choices) -> UInt64 {
    [
      VirtioModel.mergeable, VirtioModel.anyLayout, VirtioModel.events, VirtioModel.ringReset,
      VirtioModel.multiqueue, VirtioModel.mtu, VirtioModel.speed,
    ].reduce(0) { choices.isOdd(128) ? $0 | $1 : $0 }
  }

  private static func run<
    Receiver: ReceiveQueue & ~Copyable, Transmitter: TransmitQueue & ~Copyable
  >(
    _ open: @escaping DriverRun<Receiver, Transmitter>.Opener, _ model: any DeviceModel,
    _ choices: Choices, _ rings: any HostileRings, _ domain: DMADomain = DMADomain()
  ) throws -> Int {
    let card = HostileCard(model, choices, rings)
    var run = DriverRun(card, domain, open: open)
    return try inSimulatedTime(card) { try run.run() }
  }

  /// Runs `body`, in which a wait costs no time, and says how often the card has misbehaved in it.
  private static func inSimulatedTime(_ card: HostileCard, _ body: () throws -> Void) rethrows
    -> Int
  {
    fuzz_clock_start()
    defer { fuzz_clock_stop() }
    try body()
    return card.operations
  }
}

extension GigabitModel {
  fileprivate func arrive(_ frame: [UInt8]) {
    hasRoom = false
    violations = []
    sent = []
    phyWrites = []
    arriving.append(frame)
  }
}

/// A wire that keeps what shall arrive, and forgets what was sent.
private final class QueueWire: Wire {
  let kind = "queue"
  let waitsForDescriptors = false
  let isConnected = true
  let readiness: Int32? = nil
  let canSend = true
  let counts = WireCounts()
  private var frames: [[UInt8]] = []
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 14, alignment: 64)

  deinit { buffer.deallocate() }

  func arrive(_ frame: [UInt8]) { frames.append(frame) }
  func send(_ frame: UnsafeRawBufferPointer) {}

  func nextFrame() -> UnsafeRawBufferPointer? {
    guard let frame = frames.first else { return nil }
    buffer.copyBytes(from: frame)
    return UnsafeRawBufferPointer(rebasing: buffer[..<frame.count])
  }

  func takeFrame() { frames.removeFirst() }
  func receiverChanged(isOn: Bool) {}
  func close() {}
}
