import Glibc
import Synchronization

private typealias Reg = IgbRegister

/// The Intel 82576, I350, I210 and I211: gigabit Ethernet with up to eight queues each way.
@safe public final class IgbDevice: GigabitDevice {
  /// What differs between the members of the family.
  enum Family {
    case i82576, i350, i210, i211
    /// The queues that RSS can spread over.
    var queues: Int {
      switch self {
      case .i82576, .i350: 8
      case .i210: 4
      case .i211: 2
      }
    }
  }

  /// Which rings have an owner; their last acts come from the owners' threads.
  struct Rings {
    var taken: Set<Int> = []
    var isStopped = false
  }

  /// The largest MTU: DPDK and Linux let frames of 9,216 bytes and their header pass.
  static let largestMTU = 9216

  /// The second half of a transmit descriptor: a frame in one buffer.
  ///
  /// DTYP = 3 (data), EOP, IFCS and DEXT; PAYLEN and DTALEN are both the length.
  static let command = GigabitTransmitCommand(base: 0x2330_0000, lengths: 1 << 46 | 1)

  let pci: any PCIDevice
  let bar: BAR
  let domain: DMADomain
  let family: Family
  let configuration: DeviceConfiguration
  /// Packets, bytes and errors of each ring, 128 bytes apart: two threads never share a cache line.
  private let allCounters: UnsafeMutablePointer<UInt64>
  let rings = Mutex(Rings())
  /// What the card counted, up to the last reading; its own counters are short.
  let hardwareCounts = Mutex<[Int: UInt64]>([:])

  /// Resets a card and sets it up, up to its queues.
  ///
  /// - Parameters:
  ///   - pci: The card; its kernel driver must be off it.
  ///   - domain: The memory that it shares with other cards.
  ///   - configuration: Queues, rings and MTU.
  /// - Throws: When it is no such card, or does not come up in time.
  public init(
    _ pci: any PCIDevice, domain: DMADomain, configuration: DeviceConfiguration = .init()
  ) throws(DeviceError) {
    let wanted = max(configuration.receiveQueues, configuration.transmitQueues)
    guard let family = try Self.family(of: pci.identity()), configuration.isPossible,
      wanted <= family.queues, configuration.mtu <= Self.largestMTU
    else {
      throw .refused(
        "Open \(pci.name) as an igb", found: "\(try pci.identity()), \(configuration)",
        advice: "It takes an 82576 or I350 (8 queues), I210 (4) or I211 (2), rings of 64 to 4096 "
          + "(a power of 2) and an MTU of 68 to \(Self.largestMTU).")
    }
    self.pci = pci
    self.domain = domain
    self.family = family
    self.configuration = configuration
    try pci.attach(to: domain)
    bar = try pci.bar(0)
    if bar.size < 128 << 10 { throw .misbehaved(device: pci.name, "its BAR 0 is too small") }
    let cells = 16 * IgbRingRegisters.count
    unsafe allCounters = .allocate(capacity: cells)
    unsafe allCounters.initialize(repeating: 0, count: cells)
    // What an owner that was killed has left in the rings must not start again.
    try pci.setBusMaster(false)
    try reset()
    try pci.setBusMaster(true)
    bar[Reg.ctrlExt].bits |= Reg.ExtendedControl.driverLoaded | Reg.ExtendedControl.resetDone
    try startLink()
    initializeReceive()
    if configuration.receiveQueues > 1 {
      try setReceiveSideScaling(ReceiveSideScaling(queues: configuration.receiveQueues))
    }
    initializeTransmit()
  }

  deinit {
    stop()
    unsafe allCounters.deallocate()
  }

  /// Whether this driver drives a card with these ids.
  public static func supports(_ id: PCIIdentity) -> Bool { family(of: id) != nil }

  /// The family of a device id; nil when it is none of ours.
  static func family(of id: PCIIdentity) -> Family? {
    if id.vendor != 0x8086 { return nil }
    return switch id.device {
    // Copper, fibre, SerDes, quad ports, and the cards without manageability
    case 0x10C9, 0x10E6, 0x10E7, 0x10E8, 0x1526, 0x150A, 0x1518, 0x150D: .i82576
    case 0x1521...0x1524: .i350
    case 0x1533...0x1538, 0x157B, 0x157C: .i210
    case 0x1539: .i211
    default: nil
    }
  }

  // MARK: - Set-up

  /// Interrupts, receiver and transmitter off, master disable, reset, and a wait for the EEPROM.
  private func reset() throws(DeviceError) {
    bar[Reg.imc] = .max
    bar[Reg.eimc] = .max
    bar[Reg.rctl] = []
    bar[Reg.tctl] = .padShortPackets
    // No more requests on the bus, so that the reset does not break one; known drivers go on without.
    bar[Reg.ctrl].insert(.masterDisable)
    try ifInTime { () throws(DeviceError) in
      try bar.wait(for: "its last DMA", in: Reg.status, of: pci.name, limit: .milliseconds(100)) {
        !$0.isMasterEnabled
      }
    }
    usleep(10_000)
    bar[Reg.ctrl].insert(.deviceReset)
    usleep(10_000)
    try bar.wait(for: "the end of its reset", in: Reg.ctrl, of: pci.name) {
      !$0.contains(.deviceReset)
    }
    // A card without EEPROM never says that it has read it; known drivers wait for ten milliseconds.
    try ifInTime { () throws(DeviceError) in
      try bar.wait(for: "its EEPROM", in: Reg.eecd, of: pci.name, limit: .milliseconds(10)) {
        $0[9...9] == 1
      }
    }
    bar[Reg.imc] = .max
    bar[Reg.eimc] = .max
    _ = bar[Reg.icr]
  }

  /// A wait that may end in vain, but not because the card is gone.
  private func ifInTime(_ wait: () throws(DeviceError) -> Void) throws(DeviceError) {
    do throws(DeviceError) { try wait() } catch {
      guard case .timeout = error else { throw error }
    }
  }

  /// Receive unit, up to its rings.
  private func initializeReceive() {
    // These tables are memory that no reset clears.
    for i in 0..<128 {
      bar[Reg.mta(i)] = 0
      bar[Reg.vfta(i)] = 0
      bar[Reg.uta(i)] = 0
    }
    for i in 1..<16 { bar[Reg.rah(i)] = 0 }
    // Without AV the filter would not know the card's own address.
    bar[Reg.rah(0)][31...31] = 1
    // With FCS.
    bar[Reg.rlpml] = UInt32(configuration.maximumFrame + 4)
    bar[Reg.rxcsum] = 1 << 13
    bar[Reg.rctl] = [.broadcast, .longPackets, .stripCRC]
  }

  /// Transmit unit, up to its rings.
  private func initializeTransmit() {
    bar[Reg.tctl].formUnion([.enabled, .padShortPackets, .retransmitLate])
  }

  // MARK: - Rings

  /// Sets receive queue `id` up and moves it to the caller, its one owner.
  ///
  /// - Parameters:
  ///   - id: 0 up to the number of receive queues, each once.
  ///   - mempool: Where buffers come from; it belongs to the same thread as the queue.
  /// - Returns: The queue, receiving.
  /// - Throws: When the pool is too small, the queue is taken, or the device does not start the ring.
  func takeReceiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError) -> GigabitReceiveQueue {
    let entries = configuration.ringEntries
    guard mempool.available >= entries, mempool.bufferSize >= configuration.maximumFrame else {
      throw .refused(
        "Fill a receive ring of \(pci.name)",
        found: "\(mempool.available) buffers of \(mempool.bufferSize) bytes are free",
        advice: "It takes \(entries) of at least \(configuration.maximumFrame) bytes.")
    }
    let ring = try DescriptorRing(entries: entries, in: domain)
    let registers = IgbRingRegisters.receive(id)
    let counters = try unsafe take(id, of: configuration.receiveQueues, registers)
    let queue = unsafe GigabitReceiveQueue(
      ring, self, id, tail: registers.tail, counters: counters, mempool: mempool)
    // Before it is told of larger buffers than a ring that did not stop still has.
    try switchOff(registers)
    var split = Reg.SplitReceive(bits: 0)
    split.bufferSize = mempool.bufferSize
    split.descriptorType = 1
    // With several rings, one that is not served must not hold up the others.
    split.dropsWhenEmpty = configuration.receiveQueues > 1
    bar[registers.srrctl] = split
    if family != .i82576 { bar[registers.dvmolr][31...31] = 1 }
    // WTHRESH 1: a frame is seen at once.
    try start(registers, ring: queue.ring.memory, prefetch: 8, host: 8)
    // Receive Control is everybody's.
    rings.withLock { _ in _ = bar[Reg.rctl].insert(.enabled) }
    // After the receiver, or the card would not take it. The tail stays one descriptor behind: head ==
    // tail means "no free descriptor" to the device, and reception would stop.
    queue.doorbell.ring(entries - 1)
    return queue
  }

  /// Sets transmit queue `id` up and moves it to the caller, its one owner.
  ///
  /// - Parameter id: 0 up to the number of transmit queues, each once.
  /// - Returns: The queue, empty.
  /// - Throws: When the queue is taken, or the device does not start the ring.
  func takeTransmitQueue(_ id: Int) throws(DeviceError) -> GigabitTransmitQueue {
    let ring = try DescriptorRing(entries: configuration.ringEntries, in: domain)
    let registers = IgbRingRegisters.transmit(id)
    let counters = try unsafe take(id, of: configuration.transmitQueues, registers)
    let queue = unsafe GigabitTransmitQueue(
      ring, self, id, head: registers.head, tail: registers.tail, command: Self.command,
      counters: counters)
    // WTHRESH 1: a descriptor with RS is written back at once; more, and the 82576 keeps some back.
    try start(registers, ring: queue.ring.memory, prefetch: 8, host: 1)
    return queue
  }

  /// A queue's counters, which go on where they were when it was taken before.
  private func take(_ id: Int, of count: Int, _ registers: IgbRingRegisters)
    throws(DeviceError) -> UnsafeMutablePointer<UInt64>
  {
    let isOurs = rings.withLock { rings in
      0..<count ~= id && !rings.isStopped && rings.taken.insert(registers.index).inserted
    }
    if !isOurs {
      throw .refused(
        "Take queue \(id) of \(pci.name)",
        found: "the card is stopped, or the queue taken, or there are only \(count)",
        advice: "Take each queue once, and ask for enough of them.")
    }
    return unsafe counters(of: registers)
  }

  /// Packets, bytes and errors of a ring: written by its thread, read by any.
  func counters(of registers: IgbRingRegisters) -> UnsafeMutablePointer<UInt64> {
    unsafe allCounters + 16 * registers.index
  }

  /// Starts a ring from its first descriptor, unless it has not stopped for its last owner.
  private func start(
    _ ring: IgbRingRegisters, ring memory: borrowing DMAMemory, prefetch: UInt32, host: UInt32
  ) throws(DeviceError) {
    // The first rings are on after a reset; addresses may change only while they are off.
    try switchOff(ring)
    bar[ring.baseLow] = UInt32(truncatingIfNeeded: memory.iova)
    bar[ring.baseHigh] = UInt32(truncatingIfNeeded: memory.iova >> 32)
    bar[ring.length] = UInt32(memory.size)
    bar[ring.head] = 0
    bar[ring.tail] = 0
    var control = Reg.Queue(bits: 0)
    control.setThresholds(prefetch: prefetch, host: host, writeBack: 1)
    control.isEnabled = true
    bar[ring.control] = control
    try bar.wait(for: "a ring to start", in: ring.control, of: pci.name) { $0.isEnabled }
  }

  private func switchOff(_ ring: IgbRingRegisters) throws(DeviceError) {
    bar[ring.control].isEnabled = false
    try bar.wait(for: "a ring to stop", in: ring.control, of: pci.name) { !$0.isEnabled }
  }

  func stopReceiveRing(_ id: Int) -> Bool { stop(.receive(id)) }

  func stopTransmitRing(_ id: Int) -> Bool { stop(.transmit(id)) }

  /// Stops a ring; false when it does not stop, and its memory must stay.
  private func stop(_ ring: IgbRingRegisters) -> Bool {
    if rings.withLock({ $0.isStopped }) { return true }
    let stopped: Void? = try? switchOff(ring)
    // What is on its way arrives within 100 microseconds, as with the 82599.
    usleep(100)
    // Only now: the next owner starts it.
    rings.withLock { _ = $0.taken.remove(ring.index) }
    return stopped != nil
  }

  /// Stops all DMA: receiver and master off, reset, bus mastering off.
  public func stop() {
    // To the end under the lock: a queue that is dropped meanwhile must not free what is still written to.
    rings.withLock { rings in
      if rings.isStopped { return }
      rings.isStopped = true
      bar[Reg.ctrlExt].bits &= ~Reg.ExtendedControl.driverLoaded
      try? reset()
      try? pci.setBusMaster(false)
    }
  }
}
