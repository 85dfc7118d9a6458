import Glibc
import Synchronization

private typealias Reg = IxgbeRegister

/// The Intel 82599, X540 and X550 (datasheet of the 82599, revision 3.3).
@safe public final class IxgbeDevice {
  /// What differs between the members of the family.
  enum Family {
    case fiber82599, backplane82599, x540, x550
    /// A PHY that brings the link up by itself, and a smaller receive buffer.
    var hasPHY: Bool { self == .x540 || self == .x550 }
  }

  let pci: any PCIDevice
  let bar: BAR
  let domain: DMADomain
  let family: Family
  let configuration: DeviceConfiguration
  /// Packets, bytes and errors of each ring, 128 bytes apart: two threads never share a cache line.
  private let allCounters: UnsafeMutablePointer<UInt64>
  /// Which rings have an owner; their last acts come from the owners' threads.
  private let rings = Mutex((taken: Set<Int>(), isStopped: false))
  /// What the card counted, up to the last reading; its own counters are short.
  let hardwareCounts = Mutex<[Int: UInt64]>([:])

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
    guard let family = try Self.family(of: pci.identity()), configuration.isPossible else {
      throw .refused(
        "Open \(pci.name) as an ixgbe", found: "\(try pci.identity()), \(configuration)",
        advice:
          "It takes an 82599, X540 or X550, 1 to 64 queues, rings of 64 to 4096 (a power of 2) "
          + "and an MTU of 68 to 9582.")
    }
    (self.pci, self.domain) = (pci, domain)
    (self.family, self.configuration) = (family, configuration)
    try pci.attach(to: domain)
    bar = try pci.bar(0)
    if bar.size < 128 << 10 { throw .misbehaved(device: pci.name, "its BAR 0 is too small") }
    let cells = 16 * IxgbeRingRegisters.count
    unsafe allCounters = .allocate(capacity: cells)
    unsafe allCounters.initialize(repeating: 0, count: cells)
    // What an owner that was killed has left in the rings must not start again.
    try pci.setBusMaster(false)
    try reset()
    try pci.setBusMaster(true)
    startLink()
    initializeReceive()
    initializeTransmit()
  }

  deinit {
    stop()
    unsafe allCounters.deallocate()
  }

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

  // MARK: - Set-up, in the order of §4.6.3

  /// Interrupts off, master disable, reset, and waits for EEPROM and DMA.
  private func reset() throws(DeviceError) {
    bar[Reg.eimc] = .max
    bar[Reg.rxctrl][0...0] = 0
    // No more requests on the bus, so that the reset does not break one. Where some are stuck, §5.2.5.3.2
    // asks for a reset more.
    bar[Reg.ctrl].insert(.masterDisable)
    let quiet: Void? = try? bar.wait(for: "DMA", in: Reg.status, of: pci.name) { $0[19...19] == 0 }
    for _ in 0..<(quiet == nil ? 2 : 1) {
      // LRST besides RST, as known drivers have it.
      bar[Reg.ctrl] = [.deviceReset, .linkReset]
      // §4.6.3.2 asks for 10 ms, and CTRL must not be read in the first; the X540 and X550 want 100.
      usleep(family.hasPHY ? 100_000 : 10_000)
    }
    try bar.wait(for: "the end of its reset", in: Reg.ctrl, of: pci.name) {
      $0.isDisjoint(with: [.deviceReset, .linkReset])
    }
    bar[Reg.eimc] = .max
    try bar.wait(for: "its EEPROM", in: Reg.eec, of: pci.name) { $0[9...9] == 1 }
    try bar.wait(for: "its DMA engine", in: Reg.rdrxctl, of: pci.name) { $0.isInitialized }
  }

  /// The 82599 brings its own link up; the PHY of the X540 and X550 does it alone.
  private func startLink() {
    if family.hasPHY { return }
    var autoc = bar[Reg.autoc]
    if family == .fiber82599 {
      bar[Reg.esdp][3...3] = 0  // laser on
      autoc[13...15] = 3
    }
    autoc[12...12] = 1
    bar[Reg.autoc] = autoc
  }

  /// Receive unit (§4.6.7), up to its rings.
  private func initializeReceive() {
    let kilobytes: UInt32 = family.hasPHY ? 384 : 512
    for i in 0..<8 { bar[Reg.rxpbsize(i)] = i == 0 ? kilobytes << 10 : 0 }
    bar[Reg.hlreg0].formUnion([.ownFCS, .jumbo, .padShortFrames])
    bar[Reg.rdrxctl].setRequired()
    // With FCS.
    bar[Reg.maxfrs][16...31] = UInt32(configuration.maximumFrame + 4)
    bar[Reg.fctrl][10...10] = 1
    // Without AV the filter would not know the card's own address.
    bar[Reg.rah0][31...31] = 1
    bar[Reg.ctrlExt][16...16] = 1
  }

  /// Transmit unit (§4.6.8), up to its rings; sizes may change only while the arbiter is off.
  private func initializeTransmit() {
    bar[Reg.rttdcs][6...6] = 1
    for i in 0..<8 { bar[Reg.txpbsize(i)] = i == 0 ? 160 << 10 : 0 }
    bar[Reg.txpbthresh(0)] = 160 - 16
    bar[Reg.dtxmxszrq] = 0xFFF
    bar[Reg.rttdcs][6...6] = 0
    bar[Reg.dmatxctl][0...0] = 1
  }

  /// Receives every frame on the wire, or only those for this card.
  public func setPromiscuous(_ on: Bool) {
    bar[Reg.fctrl][8...9] = on ? 0b11 : 0
  }

  // MARK: - Rings

  /// Sets receive queue `id` up and moves it to the caller, its one owner (§4.6.7).
  ///
  /// Traps when the queue was not asked for or is taken, the card is stopped, or the pool is too small.
  ///
  /// - Parameters:
  ///   - id: 0 up to the number of receive queues, each once.
  ///   - mempool: Where buffers come from: as many as the ring has entries, each for a whole frame. It
  ///     belongs to the same thread as the queue.
  /// - Returns: The queue, receiving.
  /// - Throws: When there is no memory for the ring, or the device does not start it.
  public func takeReceiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> IxgbeReceiveQueue
  {
    precondition(0..<configuration.receiveQueues ~= id, "a queue that was not asked for")
    let entries = configuration.ringEntries
    precondition(mempool.available >= entries, "a mempool with fewer buffers than the ring")
    precondition(mempool.bufferSize >= configuration.maximumFrame, "buffers too small for a frame")
    let ring = try DescriptorRing(entries: entries, in: domain)
    let registers = IxgbeRingRegisters.receive(id)
    let queue = IxgbeReceiveQueue(ring, self, id, mempool)
    // Before it is told of larger buffers than a ring that did not stop still has.
    try waitUntilOff(registers)
    var split = bar[registers.srrctl]
    split.bufferSize = mempool.bufferSize
    split.bits[25...27] = 1  // DESCTYPE: advanced, one buffer
    // Drop_En: with several rings, one that is not served must not hold up the others.
    split.bits[28...28] = configuration.receiveQueues > 1 ? 1 : 0
    bar[registers.srrctl] = split
    bar[registers.dcaRxctrl][12...12] = 0
    try start(registers, queue.ring.memory)
    if bar[Reg.rxctrl][0...0] == 0 { try startReceiver() }
    // The tail stays one descriptor behind: head == tail means "no free descriptor" to the device,
    // and reception would stop (§7.1.9).
    queue.doorbell.ring(entries - 1)
    return queue
  }

  /// Sets transmit queue `id` up and moves it to the caller, its one owner (§4.6.8).
  ///
  /// Traps when the queue was not asked for or is taken, or the card is stopped.
  ///
  /// - Parameter id: 0 up to the number of transmit queues, each once.
  /// - Returns: The queue, empty.
  /// - Throws: When there is no memory for the ring, or the device does not start it.
  public func takeTransmitQueue(_ id: Int) throws(DeviceError) -> IxgbeTransmitQueue {
    precondition(0..<configuration.transmitQueues ~= id, "a queue that was not asked for")
    let ring = try DescriptorRing(entries: configuration.ringEntries, in: domain)
    let registers = IxgbeRingRegisters.transmit(id)
    let queue = IxgbeTransmitQueue(ring, self, id)
    // PTHRESH 36, HTHRESH 8, and WTHRESH 0: a descriptor with RS is written back at once.
    bar[registers.control] = 36 | 8 << 8
    try start(registers, queue.ring.memory)
    return queue
  }

  /// A queue's counters, which go on where they were when it was taken before.
  func take(_ ring: IxgbeRingRegisters) -> UnsafeMutablePointer<UInt64> {
    // It is taken already, or the card is stopped.
    precondition(rings.withLock { !$0.isStopped && $0.taken.insert(ring.index).inserted }, "taken")
    return unsafe counters(of: ring)
  }

  /// Packets, bytes and errors of a ring: written by its thread, read by any.
  func counters(of registers: IxgbeRingRegisters) -> UnsafeMutablePointer<UInt64> {
    unsafe allCounters + 16 * registers.index
  }

  /// Starts a ring from its first descriptor, unless it has not stopped for its last owner.
  func start(_ ring: IxgbeRingRegisters, _ dma: borrowing DMAMemory) throws(DeviceError) {
    try waitUntilOff(ring)
    bar[ring.baseLow] = UInt32(truncatingIfNeeded: dma.iova)
    bar[ring.baseHigh] = UInt32(truncatingIfNeeded: dma.iova >> 32)
    bar[ring.length] = UInt32(dma.size)
    bar[ring.head] = 0
    bar[ring.tail] = 0
    bar[ring.control][25...25] = 1
    try bar.wait(for: "a ring to start", in: ring.control, of: pci.name) { $0[25...25] == 1 }
  }

  func waitUntilOff(_ ring: IxgbeRingRegisters) throws(DeviceError) {
    try bar.wait(for: "a ring to stop", in: ring.control, of: pci.name) { $0[25...25] == 0 }
  }

  /// Switches the receiver on while the security path is off (§4.6.7).
  func startReceiver() throws(DeviceError) {
    bar[Reg.secrxctrl][1...1] = 1
    try bar.wait(for: "an empty security path", in: Reg.secrxstat, of: pci.name) { $0[0...0] == 1 }
    bar[Reg.rxctrl][0...0] = 1
    bar[Reg.secrxctrl][1...1] = 0
  }

  /// Stops a ring; false when it does not stop, and its memory must stay.
  func stop(_ ring: IxgbeRingRegisters) -> Bool {
    // Whoever stops the card holds the lock until that is done.
    if rings.withLock({ $0.isStopped }) { return true }
    bar[ring.control][25...25] = 0
    let stopped: Void? = try? waitUntilOff(ring)
    // A read flushes the writes before it; a card that polls shared pages takes them in now.
    _ = bar[Reg.status]
    // §4.6.7.1.2: what is on its way arrives within 100 microseconds.
    usleep(100)
    // Only now: the next owner starts it.
    rings.withLock { _ = $0.taken.remove(ring.index) }
    return stopped != nil
  }

  /// Stops all DMA: receiver and master off, reset, bus mastering off.
  public func stop() {
    rings.withLock { rings in
      if rings.isStopped { return }
      rings.isStopped = true
      try? reset()
      try? pci.setBusMaster(false)
    }
  }
}
