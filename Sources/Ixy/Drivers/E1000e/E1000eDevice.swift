import Glibc
import Synchronization

private typealias Reg = E1000eRegister

/// The Intel 82574 and 82583: gigabit Ethernet, the first with two queues each way.
@safe public final class E1000eDevice: GigabitDevice {
  /// What differs between the members of the family.
  enum Family {
    case i82574, i82583
    /// The queues each way.
    var queues: Int { self == .i82574 ? 2 : 1 }
  }

  /// Which rings have an owner; their last acts come from the owners' threads.
  ///
  /// Receive Control is everybody's: it is changed by who holds this lock.
  struct Rings {
    var taken: Set<Int> = []
    var isStopped = false
    /// The queue for each value of the hash's lower seven bits, as far as somebody serves it.
    var table: [Int] = []
  }

  /// The largest MTU: frames of 9,234 bytes pass, with header, VLAN tag and FCS.
  static let largestMTU = 9212

  /// The second half of a transmit descriptor: a frame in one buffer.
  ///
  /// DTYP = 1 (data), EOP, IFCS and DEXT; DTALEN is the length.
  static let command = GigabitTransmitCommand(base: 0x2310_0000, lengths: 1)

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
        "Open \(pci.name) as an e1000e", found: "\(try pci.identity()), \(configuration)",
        advice: "It takes an 82574 (2 queues) or 82583 (1), rings of 64 to 4096 (a power of 2) "
          + "and an MTU of 68 to \(Self.largestMTU).")
    }
    self.pci = pci
    self.domain = domain
    self.family = family
    self.configuration = configuration
    try pci.attach(to: domain)
    bar = try pci.bar(0)
    if bar.size < 128 << 10 { throw .misbehaved(device: pci.name, "its BAR 0 is too small") }
    let cells = 16 * E1000eRingRegisters.count
    unsafe allCounters = .allocate(capacity: cells)
    unsafe allCounters.initialize(repeating: 0, count: cells)
    // What an owner that was killed has left in the rings must not start again.
    try pci.setBusMaster(false)
    try reset()
    try pci.setBusMaster(true)
    setRequiredBits()
    try startLink()
    initializeReceive()
    if configuration.receiveQueues > 1 {
      var scaling = ReceiveSideScaling(queues: configuration.receiveQueues)
      scaling.fields = Self.fields
      try setReceiveSideScaling(scaling)
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
    // 82574L and 82574LA
    case 0x10D3, 0x10F6: .i82574
    case 0x150C: .i82583
    default: nil
    }
  }

  // MARK: - Set-up

  /// Interrupts, receiver and transmitter off, master disable, reset, and a wait for the EEPROM.
  private func reset() throws(DeviceError) {
    bar[Reg.imc] = .max
    bar[Reg.rctl].isEnabled = false
    bar[Reg.tctl] = .padShortPackets
    // No more requests on the bus, so that the reset does not break one; known drivers go on without.
    bar[Reg.ctrl].insert(.masterDisable)
    try ifInTime { () throws(DeviceError) in
      try bar.wait(for: "its last DMA", in: Reg.status, of: pci.name, limit: .milliseconds(100)) {
        !$0.isMasterEnabled
      }
    }
    usleep(10_000)
    // The PHY must not be in the middle of a transfer with firmware.
    try ownPHY()
    bar[Reg.ctrl].insert(.deviceReset)
    usleep(10_000)
    bar[Reg.extcnfCtrl][5...5] = 0
    try bar.wait(for: "the end of its reset", in: Reg.ctrl, of: pci.name) {
      !$0.contains(.deviceReset)
    }
    try bar.wait(for: "its EEPROM", in: Reg.eecd, of: pci.name) { $0[9...9] == 1 }
    // Then it configures the PHY, which takes it up to 25 ms.
    usleep(25_000)
    // QEMU's device keeps most registers over this reset, a real one keeps none.
    bar[Reg.ctrl].remove(.masterDisable)
    for ring in [E1000eRingRegisters.receive(0), .receive(1), .transmit(0), .transmit(1)] {
      bar[ring.length] = 0
      bar[ring.head] = 0
      bar[ring.tail] = 0
    }
    bar[Reg.mrqc] = []
    bar[Reg.imc] = .max
    _ = bar[Reg.icr]
  }

  /// A wait that may end in vain, but not because the card is gone.
  private func ifInTime(_ wait: () throws(DeviceError) -> Void) throws(DeviceError) {
    do throws(DeviceError) { try wait() } catch {
      guard case .timeout = error else { throw error }
    }
  }

  /// Bits without which known drivers do not leave this card.
  private func setRequiredBits() {
    bar[Reg.ctrl].remove(.reserved)
    bar[Reg.ctrlExt].subtract([.clearAlways, .autoMask, .pendingBits])
    bar[Reg.ctrlExt].formUnion([.setAlways, .driverLoaded])
    // Completions on the bus may be lost without, above all with power saving (ASPM), and transmission hangs.
    bar[Reg.gcr][22...22] = 1
    bar[Reg.gcr2][0...0] = 1
    bar[E1000eRingRegisters.transmit(0).tarc].setRequired()
  }

  /// Receive unit, up to its rings.
  private func initializeReceive() {
    // These tables are memory that no reset clears.
    for i in 0..<128 {
      bar[Reg.mta(i)] = 0
      bar[Reg.vfta(i)] = 0
    }
    for i in 1..<16 { bar[Reg.rah(i)] = 0 }
    bar[Reg.vet] = 0x8100
    // Without AV the filter would not know the card's own address.
    bar[Reg.rah(0)][31...31] = 1
    bar[Reg.rfctl] = 1 << 15 | 1 << 12
    bar[Reg.rxcsum] = 1 << 13
    var control = Reg.ReceiveControl(bits: 0)
    control.bits |= Reg.ReceiveControl.broadcast | Reg.ReceiveControl.stripCRC
    // The card has no other limit; up to its 16 KiB, the queues count what is too long.
    if configuration.mtu > 1500 { control.bits |= Reg.ReceiveControl.longPackets }
    // One size for both rings: no mempool that holds a whole frame has smaller buffers.
    control.bufferSize = configuration.maximumFrame.roundedUp(to: 1024)
    bar[Reg.rctl] = control
  }

  /// Transmit unit, up to its rings.
  private func initializeTransmit() {
    for id in 0..<2 { bar[E1000eRingRegisters.transmit(id).tarc].isEnabled = false }
    bar[Reg.tctl].formUnion(
      [.enabled, .padShortPackets, .collisionThreshold, .retransmitLate])
  }

  // MARK: - Rings

  /// Sets receive queue `id` up and moves it to the caller, its one owner.
  ///
  /// - Parameters:
  ///   - id: 0 up to the number of receive queues, each once.
  ///   - mempool: Where buffers come from; it belongs to the same thread as the queue.
  /// - Returns: The queue, receiving.
  /// - Throws: When the pool is too small, or the queue is taken.
  func takeReceiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError) -> GigabitReceiveQueue {
    let entries = configuration.ringEntries
    guard mempool.available >= entries, mempool.bufferSize >= configuration.maximumFrame else {
      throw .refused(
        "Fill a receive ring of \(pci.name)",
        found: "\(mempool.available) buffers of \(mempool.bufferSize) bytes are free",
        advice: "It takes \(entries) of at least \(configuration.maximumFrame) bytes.")
    }
    let ring = try DescriptorRing(entries: entries, in: domain)
    let registers = E1000eRingRegisters.receive(id)
    let counters = try unsafe take(id, of: configuration.receiveQueues, registers)
    let queue = unsafe GigabitReceiveQueue(
      ring, self, id, tail: registers.tail, counters: counters, mempool: mempool)
    start(registers, ring: queue.ring.memory)
    bar[registers.control] = .writeBackAtOnce
    rings.withLock { rings in
      spreadFrames(over: rings.taken, rings.table)
      bar[Reg.rctl].isEnabled = true
    }
    // After the receiver. The tail stays one descriptor behind: head == tail means "no free descriptor"
    // to the device, and reception would stop.
    queue.doorbell.ring(entries - 1)
    return queue
  }

  /// Sets transmit queue `id` up and moves it to the caller, its one owner.
  ///
  /// - Parameter id: 0 up to the number of transmit queues, each once.
  /// - Returns: The queue, empty.
  /// - Throws: When the queue is taken.
  func takeTransmitQueue(_ id: Int) throws(DeviceError) -> GigabitTransmitQueue {
    let ring = try DescriptorRing(entries: configuration.ringEntries, in: domain)
    let registers = E1000eRingRegisters.transmit(id)
    let counters = try unsafe take(id, of: configuration.transmitQueues, registers)
    let queue = unsafe GigabitTransmitQueue(
      ring, self, id, head: registers.head, tail: registers.tail, command: Self.command,
      counters: counters)
    start(registers, ring: queue.ring.memory)
    bar[registers.control] = .writeBackAtOnce
    bar[registers.control].bits |= Reg.Queue.countDescriptors
    bar[registers.tarc].isEnabled = true
    return queue
  }

  /// A queue's counters, which go on where they were when it was taken before.
  private func take(_ id: Int, of count: Int, _ registers: E1000eRingRegisters)
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
  func counters(of registers: E1000eRingRegisters) -> UnsafeMutablePointer<UInt64> {
    unsafe allCounters + 16 * registers.index
  }

  /// Lets a ring begin at its first descriptor.
  private func start(_ ring: E1000eRingRegisters, ring memory: borrowing DMAMemory) {
    bar[ring.baseLow] = UInt32(truncatingIfNeeded: memory.iova)
    bar[ring.baseHigh] = UInt32(truncatingIfNeeded: memory.iova >> 32)
    bar[ring.head] = 0
    bar[ring.tail] = 0
    bar[ring.length] = UInt32(memory.size)
  }

  /// Stops a receive ring: no ring has a switch of its own, so the receiver pauses for it.
  ///
  /// - Returns: True: nothing says that it has not stopped.
  func stopReceiveRing(_ id: Int) -> Bool {
    let ring = E1000eRingRegisters.receive(id)
    rings.withLock { rings in
      rings.taken.remove(ring.index)
      if rings.isStopped { return }
      bar[Reg.rctl].isEnabled = false
      // Frames that are on their way arrive; known drivers wait that long.
      usleep(10_000)
      bar[ring.length] = 0
      bar[ring.head] = 0
      bar[ring.tail] = 0
      let others = rings.taken.filter { $0 < 2 }
      spreadFrames(over: others, rings.table)
      if !others.isEmpty { bar[Reg.rctl].isEnabled = true }
    }
    return true
  }

  /// Stops a transmit ring, by its part in arbitration.
  ///
  /// - Returns: True: nothing says that it has not stopped.
  func stopTransmitRing(_ id: Int) -> Bool {
    let ring = E1000eRingRegisters.transmit(id)
    if rings.withLock({ $0.isStopped }) { return true }
    bar[ring.tarc].isEnabled = false
    // A descriptor that was fetched is sent to its end.
    usleep(1_000)
    bar[ring.length] = 0
    bar[ring.head] = 0
    bar[ring.tail] = 0
    // Only now: the next owner starts it.
    rings.withLock { _ = $0.taken.remove(ring.index) }
    return true
  }

  /// Stops all DMA: receiver and master off, reset, bus mastering off.
  public func stop() {
    // To the end under the lock: a queue that is dropped meanwhile must not free what is still written to.
    rings.withLock { rings in
      if rings.isStopped { return }
      rings.isStopped = true
      bar[Reg.ctrlExt].remove(.driverLoaded)
      try? reset()
      try? pci.setBusMaster(false)
    }
  }
}
