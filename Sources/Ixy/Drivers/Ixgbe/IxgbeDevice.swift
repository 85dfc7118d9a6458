import Glibc

private typealias Reg = IxgbeRegister

/// The Intel 82599, X540 and X550 (datasheet of the 82599, revision 3.3).
public final class IxgbeDevice: EthernetDevice {
  /// What differs between the members of the family.
  enum Family { case fiber82599, backplane82599, x540, x550 }

  /// How messages name the card.
  public var name: String { pci.name }
  /// "ixgbe"
  public var driverName: String { "ixgbe" }
  /// The address from the card's EEPROM, or the one that was set since.
  public internal(set) var macAddress = MACAddress(bits: 0)
  /// The receive and the transmit queues that were asked for.
  public var queueCounts: (receive: Int, transmit: Int) {
    (configuration.receiveQueues, configuration.transmitQueues)
  }

  let pci: any PCIDevice
  let bar: BAR
  let domain: DMADomain
  let family: Family
  private let configuration: DeviceConfiguration
  private var isStopped = false
  private var receivers: [Int: QueueCounters] = [:]
  private var transmitters: [Int: QueueCounters] = [:]
  private var receiversTaken: Set<Int> = []
  private var transmittersTaken: Set<Int> = []
  private var dropped: UInt64 = 0
  private var errors: UInt64 = 0

  /// Resets a card and sets it up, up to its queues (§4.6.3).
  ///
  /// - Parameters:
  ///   - pci: The card; its kernel driver must be off it.
  ///   - domain: The memory that it shares with other cards.
  ///   - configuration: Queues, rings and MTU.
  /// - Throws: When it is no such card, or does not come up in time.
  public init(
    _ pci: any PCIDevice, domain: DMADomain, configuration: DeviceConfiguration = .init()
  ) throws(DeviceError) {
    guard let family = try Self.family(of: pci.identity()) else {
      throw .refused(
        "Drive \(pci.name) as an ixgbe", found: "it is \(try pci.identity())",
        advice: "Supported are the 82599, X540 and X550.")
    }
    try Self.check(configuration, name: pci.name)
    self.pci = pci
    self.domain = domain
    self.family = family
    self.configuration = configuration
    try pci.attach(to: domain)
    bar = try pci.bar(0)
    try pci.setBusMaster(true)
    try reset()
    try readAddress()
    startLink()
    clearCounters()
    initializeReceive()
    initializeTransmit()
  }

  deinit { stop() }

  /// The family of a device id; nil when it is none of ours.
  static func family(of id: PCIIdentity) -> Family? {
    if id.vendor != 0x8086 { return nil }
    return switch id.device {
    // SFP+ and its relatives
    case 0x10FB, 0x1507, 0x1529, 0x154D, 0x154A, 0x1558, 0x1557, 0x154F: .fiber82599
    // KX4, KR, CX4, XAUI, and T3_LOM with a PHY of its own
    case 0x10F7, 0x1514, 0x1517, 0x10F8, 0x10F9, 0x10FC, 0x151C, 0x152A: .backplane82599
    case 0x1528, 0x1560: .x540
    case 0x1563, 0x15D1, 0x15AA...0x15AE, 0x15B0: .x550
    default: nil
    }
  }

  private static func check(_ c: DeviceConfiguration, name: String) throws(DeviceError) {
    let queues = 1...64
    guard queues ~= c.receiveQueues, queues ~= c.transmitQueues, 68...9582 ~= c.mtu,
      64...4096 ~= c.ringEntries, c.ringEntries & (c.ringEntries - 1) == 0
    else {
      throw .refused(
        "Open \(name)",
        found: "asked for \(c.receiveQueues) and \(c.transmitQueues) queues of \(c.ringEntries) "
          + "descriptors and an MTU of \(c.mtu)",
        advice: "Possible are 1 to 64 queues, 64 to 4096 descriptors (a power of two) and an MTU "
          + "of 68 to 9582.")
    }
  }

  // MARK: - Set-up, in the order of §4.6.3

  /// Interrupts off, master disable, reset, and waits for EEPROM and DMA.
  private func reset() throws(DeviceError) {
    disableInterrupts()
    bar[Reg.rxctrl][0...0] = 0
    try disableMaster()
    // LRST besides RST, as every known driver has it.
    bar[Reg.ctrl] = [.deviceReset, .linkReset]
    // §4.6.3.2 asks for 10 ms, and CTRL must not be read in the first. The X540 and X550 want 100 ms.
    usleep(family == .x540 || family == .x550 ? 100_000 : 10_000)
    try bar.wait(for: "the end of its reset", in: Reg.ctrl, of: name) {
      $0.isDisjoint(with: [.deviceReset, .linkReset])
    }
    disableInterrupts()
    try bar.wait(for: "its EEPROM (EEC.ARD)", in: Reg.eec, of: name) { $0[9...9] == 1 }
    try bar.wait(for: "its DMA engine (RDRXCTL.DMAIDONE)", in: Reg.rdrxctl, of: name) {
      $0.isInitialized
    }
  }

  private func disableInterrupts() {
    bar[Reg.eimc] = .max
    bar[Reg.eimcEx(0)] = .max
    bar[Reg.eimcEx(1)] = .max
    _ = bar[Reg.eicr]
  }

  /// No more requests on the bus, so that the reset does not break one (§5.2.5.3.2).
  private func disableMaster() throws(DeviceError) {
    bar[Reg.ctrl].insert(.masterDisable)
    do {
      try bar.wait(for: "its last DMA", in: Reg.status, of: name, limit: .milliseconds(100)) {
        !$0.contains(.masterEnabled)
      }
    } catch .timeout {
      // Requests are stuck. The datasheet asks for a reset more: one now, one as usual.
      bar[Reg.ctrl].insert(.deviceReset)
      usleep(10_000)
    }
  }

  private func readAddress() throws(DeviceError) {
    let (low, high) = (bar[Reg.ral0], bar[Reg.rah0])
    let bytes = UInt64(low) | UInt64(high & 0xFFFF) << 32
    macAddress = MACAddress(bits: bytes.byteSwapped >> 16)
    guard bytes != 0, !macAddress.isMulticast else {
      throw .misbehaved(device: name, "its EEPROM gives \(macAddress) as MAC address")
    }
    // Without AV the filter would not know the address.
    bar[Reg.rah0] = high | 1 << 31
  }

  /// The 82599 brings its own link up; the PHY of the X540 and X550 does it alone.
  private func startLink() {
    switch family {
    case .fiber82599:
      bar[Reg.esdp][3...3] = 0  // laser on
      var autoc = bar[Reg.autoc]
      autoc.linkMode = 3
      autoc.bits |= AutoNegotiationControl.restart
      bar[Reg.autoc] = autoc
    case .backplane82599: bar[Reg.autoc].bits |= AutoNegotiationControl.restart
    case .x540, .x550: break
    }
  }

  /// Receive unit (§4.6.7), up to its rings.
  private func initializeReceive() {
    let kilobytes: UInt32 = family == .x540 || family == .x550 ? 384 : 512
    for i in 0..<8 { bar[Reg.rxpbsize(i)] = i == 0 ? kilobytes << 10 : 0 }
    bar[Reg.hlreg0].formUnion([.stripCRC, .jumbo])
    bar[Reg.rdrxctl].setRequired()
    // With FCS.
    bar[Reg.maxfrs][16...31] = UInt32(configuration.maximumFrame + 4)
    bar[Reg.fctrl].insert(.broadcast)
    bar[Reg.ctrlExt][16...16] = 1
  }

  /// Transmit unit (§4.6.8), up to its rings. Sizes may change only while the arbiter is off.
  private func initializeTransmit() {
    bar[Reg.hlreg0].formUnion([.transmitCRC, .padShortFrames])
    bar[Reg.rttdcs][6...6] = 1
    for i in 0..<8 { bar[Reg.txpbsize(i)] = i == 0 ? 160 << 10 : 0 }
    bar[Reg.txpbthresh(0)] = 160 - 16
    bar[Reg.dtxmxszrq] = 0xFFF
    bar[Reg.rttdcs][6...6] = 0
    bar[Reg.dmatxctl][0...0] = 1
  }

  // MARK: - Rings

  /// Sets receive queue `id` up and moves it to the caller, its one owner (§4.6.7).
  ///
  /// - Parameters:
  ///   - id: 0 up to the number of receive queues, each once.
  ///   - mempool: Where buffers come from; it belongs to the same thread as the queue.
  /// - Returns: The queue, receiving.
  /// - Throws: When the pool is too small, the queue is taken, or the device does not start the ring.
  public func takeReceiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> IxgbeReceiveQueue
  {
    let entries = configuration.ringEntries
    guard mempool.available >= entries, mempool.bufferSize >= configuration.maximumFrame else {
      throw .refused(
        "Fill the ring of receive queue \(id) of \(name)",
        found: "\(mempool.available) buffers of \(mempool.bufferSize) bytes are free",
        advice: "It takes \(entries) of at least \(configuration.maximumFrame) bytes.")
    }
    let ring = try DescriptorRing(entries: entries, in: domain)
    try check(id, below: configuration.receiveQueues, isNew: receiversTaken.insert(id).inserted)
    // A queue that is taken again counts on from where it was.
    let counters = receivers[id] ?? QueueCounters()
    receivers[id] = counters
    let queue = IxgbeReceiveQueue(ring, self, id, counters: counters, mempool: mempool)
    try start(
      IxgbeReceiveRegisters(queue: id), ring: queue.ring.memory, bufferSize: mempool.bufferSize)
    // The tail stays one descriptor behind: head == tail means "no free descriptor" to the device,
    // and reception would stop (§7.1.9).
    queue.doorbell.ring(entries - 1)
    return queue
  }

  /// Sets transmit queue `id` up and moves it to the caller, its one owner (§4.6.8).
  ///
  /// - Parameter id: 0 up to the number of transmit queues, each once.
  /// - Returns: The queue, empty.
  /// - Throws: When the queue is taken, or the device does not start the ring.
  public func takeTransmitQueue(_ id: Int) throws(DeviceError) -> IxgbeTransmitQueue {
    let ring = try DescriptorRing(entries: configuration.ringEntries, in: domain)
    try check(id, below: configuration.transmitQueues, isNew: transmittersTaken.insert(id).inserted)
    let counters = transmitters[id] ?? QueueCounters()
    transmitters[id] = counters
    let queue = IxgbeTransmitQueue(ring, self, id, counters: counters)
    try start(IxgbeTransmitRegisters(queue: id), ring: queue.ring.memory)
    return queue
  }

  private func check(_ id: Int, below count: Int, isNew: Bool) throws(DeviceError) {
    guard 0..<count ~= id, isNew, !isStopped else {
      throw .refused(
        "Take queue \(id) of \(name)",
        found: isStopped ? "the card is stopped" : "it is taken, or not one of \(count)",
        advice: "Take each queue once, and ask for enough of them when opening the card.")
    }
  }

  /// Starts a receive ring whose descriptors are filled; the tail is the queue's.
  private func start(_ queue: IxgbeReceiveRegisters, ring: borrowing DMAMemory, bufferSize: Int)
    throws(DeviceError)
  {
    bar[queue.rdbal] = UInt32(truncatingIfNeeded: ring.iova)
    bar[queue.rdbah] = UInt32(truncatingIfNeeded: ring.iova >> 32)
    bar[queue.rdlen] = UInt32(ring.size)
    bar[queue.rdh] = 0
    bar[queue.rdt] = 0
    var split = bar[queue.srrctl]
    split.bufferSize = bufferSize
    split.descriptorType = 1
    // With several rings, one that is not served must not hold up the others.
    split.dropsWhenEmpty = configuration.receiveQueues > 1
    bar[queue.srrctl] = split
    bar[queue.dcaRxctrl][12...12] = 0
    bar[queue.rxdctl].isEnabled = true
    try bar.wait(for: "a receive ring to start", in: queue.rxdctl, of: name) { $0.isEnabled }
    if bar[Reg.rxctrl][0...0] == 0 { try startReceiver() }
  }

  /// Switches the receiver on while the security path is off (§4.6.7).
  private func startReceiver() throws(DeviceError) {
    bar[Reg.secrxctrl][1...1] = 1
    try bar.wait(for: "its security path to empty", in: Reg.secrxstat, of: name) { $0[0...0] == 1 }
    bar[Reg.rxctrl][0...0] = 1
    bar[Reg.secrxctrl][1...1] = 0
  }

  /// Starts an empty transmit ring.
  private func start(_ queue: IxgbeTransmitRegisters, ring: borrowing DMAMemory) throws(DeviceError) {
    bar[queue.tdbal] = UInt32(truncatingIfNeeded: ring.iova)
    bar[queue.tdbah] = UInt32(truncatingIfNeeded: ring.iova >> 32)
    bar[queue.tdlen] = UInt32(ring.size)
    bar[queue.tdh] = 0
    bar[queue.tdt] = 0
    // With WTHRESH 0, a descriptor with RS is written back at once.
    bar[queue.txdctl].setThresholds(prefetch: 36, host: 8, writeBack: 0)
    bar[queue.txdctl].isEnabled = true
    try bar.wait(for: "a transmit ring to start", in: queue.txdctl, of: name) { $0.isEnabled }
  }

  /// Stops a receive ring; false when it does not stop, and its memory must stay.
  func stop(receiveQueue id: Int) -> Bool {
    defer { receiversTaken.remove(id) }
    return stopRing(IxgbeReceiveRegisters(queue: id).rxdctl)
  }

  /// Stops a transmit ring; false when it does not stop, and its memory must stay.
  func stop(transmitQueue id: Int) -> Bool {
    defer { transmittersTaken.remove(id) }
    return stopRing(IxgbeTransmitRegisters(queue: id).txdctl)
  }

  private func stopRing(_ control: Register<QueueControl>) -> Bool {
    if isStopped { return true }
    bar[control].isEnabled = false
    guard
      (try? bar.wait(for: "a ring to stop", in: control, of: name) { !$0.isEnabled }) != nil
    else { return false }
    // §4.6.7.1.2: what is on its way arrives within 100 microseconds.
    usleep(100)
    return true
  }

  // MARK: - The control plane

  /// Sets receive queue `id` up and moves it to the caller.
  public func receiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> any ReceiveQueue & ~Copyable
  { try takeReceiveQueue(id, mempool: mempool) }

  /// Sets transmit queue `id` up and moves it to the caller.
  public func transmitQueue(_ id: Int) throws(DeviceError) -> any TransmitQueue & ~Copyable {
    try takeTransmitQueue(id)
  }

  /// Whether there is a link, and how fast.
  public func link() throws(DeviceError) -> Link {
    let links = bar[Reg.links]
    if links.bits == .max { throw .gone(device: name) }
    return Link(megabitsPerSecond: links.isUp ? links.megabitsPerSecond : 0)
  }

  /// Receives every frame on the wire, or only those for this card.
  public func setPromiscuous(_ on: Bool) {
    if on { bar[Reg.fctrl].insert(.promiscuous) } else { bar[Reg.fctrl].remove(.promiscuous) }
  }

  /// Everything counted since the card was opened; read it now and then, the card's counters are short.
  public func statistics() -> Statistics {
    dropped &+= Reg.receiveDrops.reduce(0) { $0 + $1.readAndClear(bar) }
    errors &+= Reg.receiveErrors.reduce(0) { $0 + $1.readAndClear(bar) }
    var sum = Statistics()
    for queue in receivers.values {
      sum.receivedPackets += queue.packets
      sum.receivedBytes += queue.bytes
      sum.receiveErrors += queue.errors
    }
    for queue in transmitters.values {
      sum.transmittedPackets += queue.packets
      sum.transmittedBytes += queue.bytes
    }
    sum.receiveDropped = dropped
    sum.receiveErrors += errors
    return sum
  }

  private func clearCounters() {
    for counter in Reg.receiveDrops + Reg.receiveErrors { _ = counter.readAndClear(bar) }
  }

  /// Stops all DMA: receiver and master off, reset, bus mastering off.
  public func stop() {
    if isStopped { return }
    isStopped = true
    try? reset()
    try? pci.setBusMaster(false)
  }
}
