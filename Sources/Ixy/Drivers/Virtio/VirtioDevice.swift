import Glibc
import Synchronization

/// A virtio network card: legacy, transitional or modern, with split or packed rings.
///
/// Facts are from the virtio specification (its sources at revision 15f488c).
@safe public final class VirtioDevice {
  /// What only a virtio card can be asked for.
  public struct Options: Sendable {
    /// Uses packed rings where the device has them.
    public var usesPackedRings = true
    /// Lets frames with a VLAN tag pass only for the VLANs that were added.
    public var filtersVLANs = false

    /// Packed rings, and every VLAN.
    public init() {}
  }

  let pci: any PCIDevice
  let domain: DMADomain
  let configuration: DeviceConfiguration
  let transport: any VirtioTransport
  /// What device and driver have agreed on.
  let features: VirtioFeatures
  /// Where commands go; nil where the device takes none.
  private(set) var control: VirtioControlQueue?
  /// The address that frames for this card have.
  public internal(set) var macAddress = MACAddress(bits: 0)

  /// One queue of the device, with its ring.
  private struct Queue {
    let memory: VirtioRingMemory
    var doorbell: VirtioDoorbell
    var state = QueueState.free
  }
  private enum QueueState {
    /// Started, with nothing in its ring.
    case free
    case taken
    /// Dropped and reset: its ring must be started again.
    case reset
    /// Dropped, and the device still has what was in its ring.
    case abandoned
  }
  private var queues: [Queue] = []
  /// Packets, bytes and errors of each queue, 128 bytes apart: two threads never share a cache line.
  private let counters: UnsafeMutablePointer<UInt64>
  /// What the device still has of queues that were dropped, by the thread that dropped them.
  private var abandoned: [(thread: pthread_t, loans: [VirtioLoan])] = []
  private var isStopped = false
  /// Whether the device has forgotten all memory.
  private var isQuiet = false
  /// Whether the device has taken a vector for each receive queue and one for its configuration.
  private(set) var hasVectors = false
  /// The VLANs that pass, where the device filters by them.
  var passingVLANs: Set<Int> = []
  // Queues are dropped by their threads, and all of them go through one selector.
  private let lock = Mutex(())

  /// Resets a card and sets it up, up to its queues.
  ///
  /// - Parameters:
  ///   - pci: The card; its kernel driver must be off it.
  ///   - domain: The memory that it shares with other cards.
  ///   - configuration: Queues, rings and MTU.
  ///   - options: What other cards do not have.
  /// - Throws: When it is no such card, cannot do what is asked, or does not come up in time.
  public init(
    _ pci: any PCIDevice, domain: DMADomain, configuration: DeviceConfiguration = .init(),
    options: Options = .init()
  ) throws(DeviceError) {
    let id = try pci.identity()
    guard Self.supports(id), configuration.isPossible else {
      throw .refused(
        "Open \(pci.name) as a virtio card", found: "\(id), \(configuration)",
        advice:
          "It takes a virtio network card, 1 to 64 queues, rings of 64 to 4096 (a power of 2) "
          + "and an MTU of 68 to 9582.")
    }
    self.pci = pci
    self.domain = domain
    self.configuration = configuration
    try pci.attach(to: domain)
    transport = try Self.transport(of: pci, id)
    features = try VirtioFeatures.negotiate(pci, transport, domain, configuration, options)
    let cells = 16 * 2 * configuration.pairs
    unsafe counters = .allocate(capacity: cells)
    unsafe counters.initialize(repeating: 0, count: cells)
    try pci.setBusMaster(true)
    // Until somebody wants it.
    try pci.setINTx(false)
    hasVectors = try chooseVectors()
    try startQueues()
    transport.status.insert(.driverOK)
    try readAddress()
    try resetFilters()
  }

  deinit {
    stop()
    unsafe counters.deallocate()
  }

  /// Whether this driver drives a card with these ids.
  public static func supports(_ id: PCIIdentity) -> Bool {
    id.vendor == 0x1AF4 && (id.device == 0x1000 || id.device == 0x1041)
  }

  /// The modern way to the device's registers where there is one.
  private static func transport(of pci: any PCIDevice, _ id: PCIIdentity)
    throws(DeviceError) -> any VirtioTransport
  {
    // What an owner that was killed has left in the rings must not start again before the reset.
    try pci.setBusMaster(false)
    if let modern = try VirtioModernTransport(pci) { return modern }
    guard id.device == 0x1000 else {
      throw .refused(
        "Open \(pci.name) as a virtio card", found: "its capabilities describe no registers",
        advice: "The device is broken.")
    }
    return try VirtioLegacyTransport(pci)
  }

  // MARK: - Queues

  /// Whether rings are packed, and not split.
  public var hasPackedRings: Bool { features.contains(.packedRing) }

  /// Makes and starts every ring before the device is told that the driver is ready, as it must be.
  private func startQueues() throws(DeviceError) {
    for index in 0..<(2 * configuration.pairs) {
      let memory = try makeRing(index)
      queues.append(Queue(memory: memory, doorbell: try transport.start(index, memory)))
    }
    guard features.contains(.controlQueue) else { return }
    let pairs = Int(transport.configuration(VirtioNetConfiguration.maximumPairs))
    let index = features.contains(.multiqueue) ? 2 * pairs : 2
    let memory = try makeRing(index)
    let doorbell = try transport.start(index, memory)
    let hasEvents = features.contains(.eventIndex)
    let ring: any VirtioControlRing =
      hasPackedRings
      ? VirtioPackedControlRing(VirtioPackedRing(memory, doorbell))
      : VirtioSplitControlRing(VirtioSplitRing(memory, doorbell, hasEvents: hasEvents))
    control = try VirtioControlQueue(ring, of: pci.name, in: domain)
  }

  /// A ring as large as is wanted and allowed; a legacy device allows one size only.
  private func makeRing(_ index: Int) throws(DeviceError) -> VirtioRingMemory {
    let size = transport.queueSize(index)
    let isPower = size & (size - 1) == 0
    let limit = VirtioRingMemory.maximumEntries(packed: hasPackedRings)
    // The control queue's commands have three parts.
    guard size >= 4, size <= limit || transport.isModern, isPower || hasPackedRings else {
      throw .misbehaved(device: pci.name, "it has rings of \(size) for queue \(index)")
    }
    let wanted = min(configuration.ringEntries, size)
    let entries = transport.isModern ? 1 << (Int.bitWidth - 1 - wanted.leadingZeroBitCount) : size
    return try VirtioRingMemory(entries: entries, packed: hasPackedRings, in: domain)
  }

  /// What makes a queue's ring interrupt when its next entry is used.
  func listener(_ index: Int) -> () -> Void {
    let (memory, doorbell) = (queues[index].memory, queues[index].doorbell)
    let hasEvents = features.contains(.eventIndex)
    if hasPackedRings {
      let ring = VirtioPackedRing(memory, doorbell)
      return { ring.listen() }
    }
    let ring = VirtioSplitRing(memory, doorbell, hasEvents: hasEvents)
    return { ring.listen() }
  }

  /// What the queues must know of what was negotiated.
  var format: VirtioFormat {
    let isLong = features.contains(.version1) || features.contains(.mergeableBuffers)
    let hasHash = features.contains(.hashReport)
    return VirtioFormat(
      headerSize: hasHash ? 20 : isLong ? 12 : 10,
      isMergeable: features.contains(.mergeableBuffers), hashMask: hasHash ? .max : 0,
      hasEvents: features.contains(.eventIndex),
      isChained: features.isDisjoint(with: [.version1, .anyLayout]),
      longest: configuration.maximumFrame)
  }

  /// Gives a queue to the caller.
  ///
  /// - Parameters:
  ///   - index: Its number among all queues.
  ///   - packed: What kind of ring the caller drives.
  ///   - mempool: Where a receive queue takes its buffers from.
  /// - Returns: What the queue is made of.
  /// - Throws: When the queue is taken, of another kind, or the pool too small.
  func take(_ index: Int, packed: Bool, mempool: Mempool? = nil) throws(DeviceError)
    -> VirtioQueueSetup
  {
    let what = "Take \(index % 2 == 0 ? "receive" : "transmit") queue \(index / 2) of \(pci.name)"
    let count = index % 2 == 0 ? configuration.receiveQueues : configuration.transmitQueues
    guard 0..<count ~= index / 2, index >= 0, packed == hasPackedRings else {
      throw .refused(
        what, found: "there are \(count), with \(hasPackedRings ? "packed" : "split") rings",
        advice: "Ask for enough of them, and for their kind.")
    }
    let format = format
    let entries = lock.withLock { _ in queues[index].memory.entries }
    let capacity = min(format.isChained ? entries / 2 : entries, configuration.ringEntries)
    let least = format.isMergeable ? Mempool.defaultBufferSize : configuration.maximumFrame
    if let mempool, mempool.available < capacity || mempool.bufferSize < least {
      throw .refused(
        what, found: "\(mempool.available) buffers of \(mempool.bufferSize) bytes are free",
        advice: "It takes \(capacity) of at least \(least) bytes.")
    }
    lock._unsafeLock()
    defer { lock._unsafeUnlock() }
    let state = queues[index].state
    guard !isStopped, state != .taken, state != .abandoned else {
      throw .refused(
        what, found: isStopped ? "the card is stopped" : "it was taken before",
        advice: state == .abandoned
          ? "This device cannot restart a single queue; open it again." : "Take each queue once.")
    }
    if state == .reset {
      queues[index].memory.clear()
      // The reset has taken its vector away.
      if hasVectors, index % 2 == 0, !transport.setVector(UInt16(index / 2), of: index) {
        throw .refused(what, found: "the device refuses its interrupt", advice: "Open it again.")
      }
      queues[index].doorbell = try transport.start(index, queues[index].memory)
    }
    queues[index].state = .taken
    return unsafe VirtioQueueSetup(
      device: self, index: index, memory: queues[index].memory, doorbell: queues[index].doorbell,
      format: format, capacity: capacity, counters: counters(of: index))
  }

  /// Packets, bytes and errors of a queue: written by its thread, read by any.
  func counters(of index: Int) -> UnsafeMutablePointer<UInt64> { unsafe counters + 16 * index }

  /// Takes a queue back that is dropped; buffers go home when the device has let go of them.
  func close(_ index: Int, _ loans: [VirtioLoan]) {
    let isLast = lock.withLock { _ in
      if !isStopped {
        let isReset = features.contains(.ringReset) && transport.reset(index)
        queues[index].state = isReset ? .reset : .abandoned
        if isReset {
          giveBack(loans)
          return false
        }
      } else if isQuiet {
        giveBack(loans)
        return false
      }
      abandoned.append((pthread_self(), loans))
      return !isStopped && !queues.contains { $0.state == .taken }
    }
    // Only a reset makes the device let go.
    if isLast { stop() }
  }

  private func giveBack(_ loans: [VirtioLoan]) {
    for loan in loans { unsafe loan.pool.give(loan.buffer) }
  }

  /// Stops all DMA: reset, bus mastering off.
  public func stop() {
    lock.withLock { _ in
      if isStopped { return }
      isStopped = true
      let reset: Void? = try? transport.reset(of: pci.name)
      try? pci.setBusMaster(false)
      isQuiet = reset != nil
      if !isQuiet {
        // It may still write: nothing of it is used again.
        for queue in queues { queue.memory.leak() }
        control?.leak()
        return
      }
      // A pool belongs to one thread: what another has dropped stays away.
      for (thread, loans) in abandoned where pthread_equal(thread, pthread_self()) != 0 {
        giveBack(loans)
      }
      abandoned = []
    }
  }
}

/// What a queue is made of.
@safe struct VirtioQueueSetup {
  let device: VirtioDevice
  /// Receive queue n is 2n, transmit queue n is 2n + 1.
  let index: Int
  let memory: VirtioRingMemory
  let doorbell: VirtioDoorbell
  let format: VirtioFormat
  /// The number of buffers that the device may have.
  let capacity: Int
  let counters: UnsafeMutablePointer<UInt64>
}

extension DeviceConfiguration {
  /// The queue pairs that a virtio device must have.
  var pairs: Int { max(receiveQueues, transmitQueues) }
}
