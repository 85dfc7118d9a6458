import Glibc
import Synchronization

private typealias Reg = Vmxnet3Register

/// The network card of VMware's virtual machines, by its first revision.
///
/// The device learns of all rings at once, when it is activated: with the first queue that is taken. It has
/// no switch for a single receive ring: dropping a receive queue stops the whole card, and its other queues throw
/// from then on. When all of them are dropped, too, they can be taken again.
@safe public final class Vmxnet3Device {
  /// What changes while the queues' threads run; who holds the lock may give commands.
  struct State {
    var taken: Set<Int> = []
    var isActive = false
    var isStopped = false
    /// Whether the device did not become quiet when it was told: it may still write into its memory.
    var isLost = false
    /// Where each transmit ring goes on.
    var positions: [Int: Vmxnet3TransmitQueue.Position] = [:]
    /// What the device had counted when it was last stopped: each start begins at zero.
    var dropped: UInt64 = 0
  }

  /// The queues each way that every device of the kind has.
  static let largestQueues = 8
  /// The device's own limit.
  static let largestMTU = 9000

  let pci: any PCIDevice
  /// BAR 0 and BAR 1: the data path, and control.
  let data: BAR
  let control: BAR
  let domain: DMADomain
  let configuration: DeviceConfiguration
  let state = Mutex(State())
  /// Whether the card was stopped for a queue that was dropped, while there were others.
  private let isHalted = Atomic(false)
  /// Interrupts as they were set up, before the first activation.
  var interrupts = InterruptSetUp()
  /// How frames are spread over several receive queues.
  var scaling: ReceiveSideScaling
  /// Which frames are received; the device forgets it with each activation.
  var filter = Filter()
  /// What device and driver share; nil before the first activation.
  private(set) var area: Vmxnet3Memory?
  private(set) var receiveRings: [Vmxnet3Rings] = []
  private(set) var transmitRings: [Vmxnet3Rings] = []
  /// Packets, bytes and errors of each ring, 128 bytes apart: two threads never share a cache line.
  private let allCounters: UnsafeMutablePointer<UInt64>

  /// Resets a card; everything else waits for its first queue.
  ///
  /// - Parameters:
  ///   - pci: The card; its kernel driver must be off it.
  ///   - domain: The memory that it shares with other cards.
  ///   - configuration: Queues, rings and MTU.
  /// - Throws: When it is no such card, or speaks no revision that is known.
  public init(
    _ pci: any PCIDevice, domain: DMADomain, configuration: DeviceConfiguration = .init()
  ) throws(DeviceError) {
    let wanted = max(configuration.receiveQueues, configuration.transmitQueues)
    guard try Self.supports(pci.identity()), configuration.isPossible,
      wanted <= Self.largestQueues, configuration.mtu <= Self.largestMTU
    else {
      throw .refused(
        "Open \(pci.name) as a vmxnet3", found: "\(try pci.identity()), \(configuration)",
        advice: "It takes 1 to \(Self.largestQueues) queues, rings of 64 to 4096 (a power of 2) "
          + "and an MTU of 68 to \(Self.largestMTU).")
    }
    self.pci = pci
    self.domain = domain
    self.configuration = configuration
    scaling = ReceiveSideScaling(queues: configuration.receiveQueues)
    scaling.fields = Vmxnet3RSS.fields
    try pci.attach(to: domain)
    data = try pci.bar(0)
    control = try pci.bar(1)
    if data.size < 4096 || control.size < 4096 {
      throw .misbehaved(device: pci.name, "its BARs are too small")
    }
    let cells = 16 * 2 * Self.largestQueues
    unsafe allCounters = .allocate(capacity: cells)
    unsafe allCounters.initialize(repeating: 0, count: cells)
    // What an owner that was killed has left in the rings must not start again.
    try pci.setBusMaster(false)
    try chooseRevision()
    execute(.quiesce)
    execute(.reset)
    try pci.setBusMaster(true)
    filter.address = readAddress()
  }

  deinit {
    stop()
    unsafe allCounters.deallocate()
  }

  /// Whether this driver drives a card with these ids.
  public static func supports(_ id: PCIIdentity) -> Bool {
    id.vendor == 0x15AD && id.device == 0x07B0
  }

  // MARK: - Set-up

  /// Revision 1 of both the device and its queues.
  private func chooseRevision() throws(DeviceError) {
    let (revisions, layouts) = (control[Reg.vrrs], control[Reg.uvrs])
    if revisions == .max { throw .gone(device: pci.name) }
    guard revisions[0...0] == 1, layouts[0...0] == 1 else {
      throw .refused(
        "Open \(pci.name) as a vmxnet3",
        found: "it has revisions \(String(revisions, radix: 2)) and \(String(layouts, radix: 2))",
        advice: "Only the first is known.")
    }
    control[Reg.vrrs] = 1
    control[Reg.uvrs] = 1
  }

  /// Gives a command that has no result; the lock is held, or there is no queue yet.
  func give(_ command: Vmxnet3Register.Command) { control[Reg.cmd] = command }

  /// Gives a command, and waits for its result; the lock is held, or there is no queue yet.
  @discardableResult func execute(_ command: Vmxnet3Register.Command) -> UInt32 {
    control[Reg.cmd] = command
    return control[Reg.cmd].bits
  }

  /// Makes the areas and all rings, once.
  private func allocate() throws(DeviceError) -> Vmxnet3Memory {
    if let area { return area }
    let entries = configuration.ringEntries
    var (receive, transmit): ([Vmxnet3Rings], [Vmxnet3Rings]) = ([], [])
    for _ in 0..<configuration.receiveQueues {
      receive.append(try .receive(entries: entries, in: domain))
    }
    for _ in 0..<configuration.transmitQueues {
      transmit.append(try .transmit(entries: entries, in: domain))
    }
    let area = try Vmxnet3Memory(Vmxnet3Area.size, in: domain)
    (receiveRings, transmitRings, self.area) = (receive, transmit, area)
    return area
  }

  /// Starts the device with empty rings; the lock is held, and no queue is taken.
  private func activate() throws(DeviceError) {
    let area = try allocate()
    area.clear()
    for part in (receiveRings + transmitRings).flatMap(\.parts) { part.clear() }
    describe(in: area)
    control[Reg.dsal] = UInt32(truncatingIfNeeded: area.address)
    control[Reg.dsah] = UInt32(truncatingIfNeeded: area.address >> 32)
    let result = execute(.activate)
    if result == .max { throw .gone(device: pci.name) }
    if result != 0 {
      throw .misbehaved(device: pci.name, "it refused to be activated, with code \(result)")
    }
    isHalted.store(false, ordering: .relaxed)
    // Not before: with its activation the device takes up its own again.
    writeAddress()
    give(.updateReceiveMode)
  }

  // MARK: - Queues

  /// Sets receive queue `id` up and moves it to the caller, its one owner.
  ///
  /// - Parameters:
  ///   - id: 0 up to the number of receive queues, each once.
  ///   - mempool: Where buffers come from; it belongs to the same thread as the queue.
  /// - Returns: The queue, receiving.
  /// - Throws: When the pool is too small, the queue is taken, or the device refuses.
  func takeReceiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError) -> Vmxnet3ReceiveQueue {
    let entries = configuration.ringEntries
    guard mempool.available >= entries, mempool.bufferSize >= configuration.maximumFrame else {
      throw .refused(
        "Fill a receive ring of \(pci.name)",
        found: "\(mempool.available) buffers of \(mempool.bufferSize) bytes are free",
        advice: "It takes \(entries) of at least \(configuration.maximumFrame) bytes.")
    }
    let index = Self.index(receive: id)
    _ = try take(index, id, of: configuration.receiveQueues)
    let area = try allocate()
    return unsafe Vmxnet3ReceiveQueue(
      receiveRings[id], self, id, wantsDoorbell: doorbellWish(id, in: area),
      counters: counters(index), mempool: mempool)
  }

  /// Sets transmit queue `id` up and moves it to the caller, its one owner.
  ///
  /// - Parameter id: 0 up to the number of transmit queues, each once.
  /// - Returns: The queue, empty.
  /// - Throws: When the queue is taken, or the device refuses.
  func takeTransmitQueue(_ id: Int) throws(DeviceError) -> Vmxnet3TransmitQueue {
    let index = Self.index(transmit: id)
    let position = try take(index, id, of: configuration.transmitQueues)
    return unsafe Vmxnet3TransmitQueue(
      transmitRings[id], self, id, counters: counters(index), position: position)
  }

  /// The rings of a card in one row, receive rings first.
  static func index(receive id: Int) -> Int { id }
  static func index(transmit id: Int) -> Int { largestQueues + id }

  /// Packets, bytes and errors of a ring: written by its thread, read by any.
  func counters(_ index: Int) -> UnsafeMutablePointer<UInt64> { unsafe allCounters + 16 * index }

  /// Marks a queue as taken; the first one starts the device.
  ///
  /// - Returns: Where a transmit ring goes on.
  private func take(_ index: Int, _ id: Int, of count: Int)
    throws(DeviceError) -> Vmxnet3TransmitQueue.Position
  {
    try state.withLock { state throws(DeviceError) in
      guard 0..<count ~= id, !state.isStopped, !state.isLost, !state.taken.contains(index) else {
        throw .refused(
          "Take queue \(id) of \(pci.name)",
          found: "the card is stopped, or the queue taken, or there are only \(count)",
          advice: "Take each queue once, and ask for enough of them.")
      }
      if !state.isActive {
        guard state.taken.isEmpty else {
          throw .refused(
            "Take queue \(id) of \(pci.name)",
            found: "a receive queue was dropped, which stops the card",
            advice: "Drop all others, too, then take them again.")
        }
        try activate()
        state.isActive = true
        state.positions = [:]
      }
      state.taken.insert(index)
      return state.positions[index] ?? .init()
    }
  }

  /// Whether the device moves frames.
  var isActive: Bool { state.withLock { $0.isActive } }

  /// Stops the card for a receive queue that is dropped; false when its memory and buffers must stay.
  func releaseReceiveQueue(_ id: Int) -> Bool {
    state.withLock { state in
      state.taken.remove(Self.index(receive: id))
      return halt(&state)
    }
  }

  /// Notes where a transmit ring goes on; nil stops the card, because the ring did not run empty.
  ///
  /// - Returns: False when its memory and buffers must stay.
  func releaseTransmitQueue(_ id: Int, position: Vmxnet3TransmitQueue.Position?) -> Bool {
    state.withLock { state in
      state.taken.remove(Self.index(transmit: id))
      guard let position else { return halt(&state) }
      state.positions[Self.index(transmit: id)] = position
      return true
    }
  }

  /// Stops all rings for a queue that is dropped, and lets the owners of the others know.
  private func halt(_ state: inout State) -> Bool {
    if state.isActive, !state.taken.isEmpty { isHalted.store(true, ordering: .relaxed) }
    return quiesce(&state)
  }

  /// Throws when the card was stopped under the owner of queue `id`.
  @inline(__always) func checkActive(_ id: Int) throws(DeviceError) {
    if isHalted.load(ordering: .relaxed) { throw haltedUnder(id) }
  }

  @inline(never) private func haltedUnder(_ id: Int) -> DeviceError {
    .refused(
      "Use queue \(id) of \(pci.name)",
      found: "another queue was dropped, and that stops the whole card",
      advice: "Drop all others, too, then take them again.")
  }

  /// Stops all rings, while the lock is held; false when the device does not say so.
  private func quiesce(_ state: inout State) -> Bool {
    if !state.isActive { return !state.isLost }
    state.dropped &+= droppedSinceActivation()
    state.isActive = false
    state.isLost = execute(.quiesce) != 0
    if state.isLost {
      area?.leak()
      for part in (receiveRings + transmitRings).flatMap(\.parts) { part.leak() }
    }
    return !state.isLost
  }

  /// Why nothing of a ring is believed any more.
  func brokenRing(_ kind: String, _ id: Int) -> DeviceError {
    .misbehaved(
      device: pci.name, "it completed a descriptor of \(kind) ring \(id) that was not its turn")
  }

  /// Stops all DMA: quiet, reset, no shared area, bus mastering off.
  public func stop() {
    state.withLock { state in
      if state.isStopped { return }
      _ = quiesce(&state)
      state.isStopped = true
      execute(.quiesce)
      execute(.reset)
      control[Reg.dsal] = 0
      control[Reg.dsah] = 0
    }
    try? pci.setBusMaster(false)
  }
}
