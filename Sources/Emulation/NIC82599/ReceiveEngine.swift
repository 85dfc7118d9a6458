import Ixy

/// Takes frames from the wire, filters them, and stores them in the queues' buffers (reference, section 5).
///
/// Frames on a wire have no FCS; one is made where the driver wants to see it. Header split, receive
/// coalescing and steering by filters are not there: such queues get whole frames, by RSS alone.
@safe final class ReceiveEngine {
  // SAFETY: a queue's number is checked where it comes in; those in `enabledQueues`, and those that
  // RSS gives (7 bits at most), are below `queueCount`. A wire's frame stays valid until it is
  // taken, and nothing of it is looked at before its length; `scratch` holds the longest that
  // passes, with its FCS.
  /// The number of queues.
  static let queueCount = 128
  /// The longest frame that the card takes, whatever MAXFRS says, in bytes without FCS.
  static let longestFrame = 16 << 10
  /// The shortest, without FCS.
  static let shortestFrame = 60

  private let registers: RegisterFile
  private let dma: DMATable
  private let statistics: PortStatistics
  private let interrupts: InterruptUnit
  private let filter = AddressFilter()
  private let scaling: ReceiveSideScaling
  private let queues = UnsafeMutablePointer<ReceiveQueue>.allocate(capacity: queueCount)
  /// A frame whose bytes are changed on their way to a buffer.
  private let scratch = UnsafeMutableRawPointer.allocate(
    byteCount: longestFrame + 64, alignment: 64)

  /// The queues that are enabled.
  private var enabledQueues: [Int] = []
  /// Registers have changed since they were last taken in.
  private var isStale = true
  /// The state of the DMA table at which the queues' pointers are valid.
  private var generation: UInt64 = 0
  private var isReceiving = false
  private var isLooped = false
  private var stripsFCS = true
  private var storesBad = false
  /// All ones where descriptors report the RSS hash, else 0.
  private var hashMask: UInt32 = 0
  private var reportsFragments = false
  /// Frames may need something that `receiveUnusual` does.
  private var changesFrames = false
  /// The longest untagged frame that MAXFRS allows, without FCS.
  private var maximumFrame = 0
  /// The longest frame that goes unchanged into one buffer of queue 0; 0 when none does.
  private var longestPlain = 0
  /// The queue that the last frame found no descriptor in.
  private var emptyQueue = 0
  /// A frame was lost since the last poll.
  private var hasMissed = false

  init(
    registers: RegisterFile, dma: DMATable, statistics: PortStatistics, interrupts: InterruptUnit,
    hasWideTable: Bool = false
  ) {
    scaling = ReceiveSideScaling(hasWideTable: hasWideTable)
    self.registers = registers
    self.dma = dma
    self.statistics = statistics
    self.interrupts = interrupts
    unsafe queues.initialize(repeating: ReceiveQueue(), count: Self.queueCount)
  }

  deinit {
    unsafe queues.deallocate()
    unsafe scratch.deallocate()
  }

  // MARK: What the driver does

  /// RXDCTL.ENABLE rose: the ring is where the registers say now.
  func enable(queue: Int) {
    precondition(queue >= 0 && queue < Self.queueCount)
    unsafe queues[queue] = ReceiveQueue()
    unsafe queues[queue].isEnabled = true
    unsafe queues[queue].ring.latch(registers, bank: EngineRegister.receiveBank(queue))
    queuesChanged()
  }

  /// RXDCTL.ENABLE fell: the card leaves the ring alone.
  func disable(queue: Int) {
    precondition(queue >= 0 && queue < Self.queueCount)
    unsafe queues[queue] = ReceiveQueue()
    queuesChanged()
  }

  /// RDT was written.
  func setTail(queue: Int, _ value: UInt32) {
    precondition(queue >= 0 && queue < Self.queueCount)
    if unsafe queues[queue].isEnabled { unsafe queues[queue].ring.setTail(value) }
  }

  /// RDH was written.
  func setHead(queue: Int, _ value: UInt32) {
    precondition(queue >= 0 && queue < Self.queueCount)
    if unsafe queues[queue].isEnabled { unsafe queues[queue].ring.setHead(value) }
  }

  /// Back to power-on: no queue is enabled.
  func reset() {
    for queue in 0..<Self.queueCount { unsafe queues[queue] = ReceiveQueue() }
    queuesChanged()
  }

  /// A register of the receive path was written.
  func configurationChanged() { isStale = true }

  private func queuesChanged() {
    enabledQueues = (0..<Self.queueCount).filter { unsafe queues[$0].isEnabled }
    isStale = true
  }

  // MARK: The wire

  /// Receives up to `limit` frames from the wire.
  ///
  /// - Returns: The number of frames taken off the wire, stored or not.
  func poll(_ wire: any Wire, limit: Int) -> Int {
    prepare()
    guard isReceiving, !isLooped else { return discard(wire, limit) }
    var moved = 0
    while moved < limit, let frame = unsafe wire.nextFrame() {
      if unsafe !receive(frame) {
        if wire.waitsForDescriptors { break }
        miss(frame.count)
      }
      wire.takeFrame()
      moved &+= 1
    }
    finish()
    return moved
  }

  /// Receives a frame that this card has sent, in loopback (HLREG0.LPBK).
  func deliverLoopback(_ frame: UnsafeRawBufferPointer) {
    prepare()
    guard isReceiving else { return }
    if unsafe !receive(frame) { miss(frame.count) }
    finish()
  }

  /// Nobody receives: what does not wait is lost.
  private func discard(_ wire: any Wire, _ limit: Int) -> Int {
    var moved = 0
    while moved < limit, !wire.waitsForDescriptors, unsafe wire.nextFrame() != nil {
      wire.takeFrame()
      moved &+= 1
    }
    return moved
  }

  private func miss(_ count: Int) {
    hasMissed = true
    unsafe statistics.countMissed(
      count + PortStatistics.fcs, queue: emptyQueue, dropsEarly: queues[emptyQueue].dropsEarly)
  }

  /// Makes valid what is derived from registers and mappings.
  private func prepare() {
    if isStale { refresh() }
    if generation != dma.generation {
      generation = dma.generation
      for queue in enabledQueues { unsafe queues[queue].forgetMappings() }
    }
  }

  private func refresh() {
    isStale = false
    let hlreg0 = registers[EngineRegister.hlreg0]
    isReceiving = registers.has(EngineBit.receiveEnable, at: EngineRegister.rxctrl)
    isLooped = hlreg0 & EngineBit.loopback != 0
    stripsFCS = hlreg0 & EngineBit.stripCRC != 0
    storesBad = registers.has(EngineBit.storeBad, at: EngineRegister.fctrl)
    let checksums = registers[EngineRegister.rxcsum]
    hashMask = checksums & EngineBit.reportHash != 0 ? .max : 0
    reportsFragments = hashMask == 0 && checksums & EngineBit.fragmentChecksum != 0
    changesFrames = !stripsFCS || reportsFragments
    // Without JUMBOEN the limit is Ethernet's own.
    let limit =
      hlreg0 & EngineBit.jumbo != 0 ? Int(registers[EngineRegister.maxfrs] >> 16) : 1518
    maximumFrame = min(limit - PortStatistics.fcs, Self.longestFrame)
    filter.refresh(registers)
    scaling.refresh(registers)
    for queue in enabledQueues {
      unsafe queues[queue].refresh(registers, bank: EngineRegister.receiveBank(queue))
    }
    longestPlain =
      unsafe changesFrames || scaling.isOn ? 0 : min(maximumFrame, queues[0].bufferSize)
  }

  /// Reports what was done since `prepare`.
  private func finish() {
    for i in 0..<enabledQueues.count where unsafe queues[enabledQueues[i]].frames > 0 {
      let queue = enabledQueues[i]
      let bank = EngineRegister.receiveBank(queue)
      registers[bank + EngineRegister.Bank.head] = unsafe UInt32(queues[queue].ring.head)
      unsafe statistics.addReceived(
        queue: queue, frames: queues[queue].frames, octets: queues[queue].octets)
      unsafe queues[queue].frames = 0
      unsafe queues[queue].octets = 0
      interrupts.received(queue: queue)
    }
    if hasMissed {
      hasMissed = false
      interrupts.other(EngineBit.missedCause)
    }
  }

  // MARK: A frame

  /// Filters one frame and stores it.
  ///
  /// Nearly all frames are for our own address, without a tag, and go into a buffer unchanged: those are
  /// handled here, and all others elsewhere, so that their needs cost nothing.
  ///
  /// - Returns: False when it was for a queue without descriptors, and nothing has been done.
  @inline(__always)
  private func receive(_ frame: UnsafeRawBufferPointer) -> Bool {
    let count = frame.count
    guard count >= Self.shortestFrame, count <= longestPlain else {
      return unsafe receiveOther(frame)
    }
    // SAFETY: it is not empty, so it has an address.
    let start = unsafe frame.baseAddress.unsafelyUnwrapped
    let destination = unsafe start.loadUnaligned(as: UInt64.self).littleEndian
    let isPlain = unsafe FrameHeaders.isPlainIPv4(start, 14)
    guard filter.takes(destination), unsafe isPlain || !isTagged(start),
      let descriptor = unsafe queues[0].copy(start, count)
    else { return unsafe receiveOther(frame) }
    let headers =
      unsafe isPlain
      ? FrameHeaders.plainIPv4(start, count, 14) : FrameHeaders.findOther(start, count, 14)
    let report = ReceiveReport(type: headers.packetType, status: headers.status)
    unsafe queues[0].finish(descriptor, count, report)
    self.count(queue: 0, count, destination)
    return true
  }

  @inline(__always)
  private func count(queue: Int, _ count: Int, _ destination: UInt64) {
    unsafe queues[queue].frames &+= 1
    unsafe queues[queue].octets &+= count
    statistics.countReceived(count &+ PortStatistics.fcs, start: destination)
  }

  private func isTagged(_ start: UnsafeRawPointer) -> Bool {
    unsafe start.loadUnaligned(fromByteOffset: 12, as: UInt16.self) == filter.vlanType
  }

  /// Stores a frame in the queue that RSS chooses, and hands on what needs more.
  @inline(never)
  private func receiveOther(_ frame: UnsafeRawBufferPointer) -> Bool {
    let count = frame.count
    guard scaling.isOn, !changesFrames, count >= Self.shortestFrame, count <= maximumFrame else {
      return unsafe receiveUnusual(frame)
    }
    // SAFETY: it is not empty, so it has an address.
    let start = unsafe frame.baseAddress.unsafelyUnwrapped
    let destination = unsafe start.loadUnaligned(as: UInt64.self).littleEndian
    guard filter.takes(destination), unsafe !isTagged(start) else {
      return unsafe receiveUnusual(frame)
    }
    let headers = unsafe FrameHeaders.find(in: start, count: count, network: 14)
    let choice = unsafe scaling.choose(start, headers, network: 14)
    let report = ReceiveReport(
      type: headers.packetType | choice.type, detail: choice.hash & hashMask,
      status: headers.status)
    if unsafe count <= queues[choice.queue].bufferSize,
      let descriptor = unsafe queues[choice.queue].copy(start, count)
    {
      unsafe queues[choice.queue].finish(descriptor, count, report)
      self.count(queue: choice.queue, count, destination)
      return true
    }
    let outcome = unsafe queues[choice.queue].store(start, count, report, dma)
    return settle(outcome, queue: choice.queue, count, destination)
  }

  /// Counts a frame after a queue has tried to store it.
  private func settle(
    _ outcome: ReceiveQueue.Outcome, queue: Int, _ count: Int, _ destination: UInt64
  ) -> Bool {
    if outcome == .stored {
      self.count(queue: queue, count, destination)
      return true
    }
    emptyQueue = queue
    if outcome == .refused { miss(count) }
    return outcome == .refused
  }

  // MARK: Other frames

  /// Filters and stores any frame, as `receive` does.
  private func receiveUnusual(_ frame: UnsafeRawBufferPointer) -> Bool {
    let count = frame.count
    guard let start = frame.baseAddress, count >= 14 else { return unsafe receiveBad(frame) }
    let isTagged = unsafe isTagged(start)
    // A VLAN tag may make a frame 4 bytes longer.
    let longest = min(isTagged ? maximumFrame + 4 : maximumFrame, Self.longestFrame)
    guard count >= Self.shortestFrame, count <= longest else { return unsafe receiveBad(frame) }
    let destination = unsafe AddressFilter.load(start)
    let verdict = filter.check(destination)
    var report = ReceiveReport()
    if isTagged {
      report.tag = unsafe start.loadUnaligned(fromByteOffset: 14, as: UInt16.self).bigEndian
    }
    guard verdict != .reject, !isTagged || filter.checkTag(report.tag) else {
      statistics.countFiltered(count + PortStatistics.fcs)
      return true
    }
    let network = isTagged ? 18 : 14
    let headers = unsafe FrameHeaders.find(in: start, count: count, network: network)
    report.type = headers.packetType
    report.status = headers.status | (verdict == .inexact ? ReceiveReport.inexact : 0)
    var queue = 0
    if scaling.isOn {
      let choice = unsafe scaling.choose(start, headers, network: network)
      queue = choice.queue
      report.type |= choice.type
      report.detail = choice.hash & hashMask
    }
    if reportsFragments,
      let fragment = unsafe FrameHeaders.fragment(in: start, count: count, network: network)
    {
      report.status |= ReceiveReport.fragmentValid
      report.detail = fragment
    }
    let outcome = unsafe storeChanged(start, count, queue, report, isTagged: isTagged)
    if outcome == .stored && !stripsFCS { unsafe queues[queue].octets += PortStatistics.fcs }
    return settle(outcome, queue: queue, count, destination)
  }

  /// Stores a frame without its tag, or with its FCS.
  private func storeChanged(
    _ start: UnsafeRawPointer, _ count: Int, _ queue: Int, _ report: ReceiveReport, isTagged: Bool
  ) -> ReceiveQueue.Outcome {
    var report = report
    var size = count
    if unsafe isTagged && queues[queue].stripsTag {
      report.status |= ReceiveReport.hasTag
      unsafe scratch.copyMemory(from: start, byteCount: 12)
      size -= 4
      unsafe (scratch + 12).copyMemory(from: start + 16, byteCount: size - 12)
    } else {
      // DATASHEET-UNSEEN: without stripping, neither VP nor the tag is reported.
      report.tag = 0
      unsafe scratch.copyMemory(from: start, byteCount: size)
    }
    if !stripsFCS {
      // DATASHEET-UNSEEN: the FCS of the frame as it was on the wire, tag included.
      let check = unsafe CyclicCheck.ethernet(start, count).littleEndian
      unsafe (scratch + size).storeBytes(of: check, as: UInt32.self)
      size += PortStatistics.fcs
    }
    return unsafe queues[queue].store(scratch, size, report, dma)
  }

  /// Counts a frame that is too long or too short; FCTRL.SBP stores the latter all the same.
  private func receiveBad(_ frame: UnsafeRawBufferPointer) -> Bool {
    let length = frame.count + PortStatistics.fcs
    if frame.count >= Self.shortestFrame {
      statistics.countOversize(length)
      return true
    }
    if storesBad, frame.count >= 14, let start = frame.baseAddress,
      unsafe filter.check(AddressFilter.load(start)) != .reject
    {
      let report = ReceiveReport(status: ReceiveReport.error)
      let outcome = unsafe queues[0].store(start, frame.count, report, dma)
      if outcome == .noDescriptor {
        emptyQueue = 0
        return false
      }
      if outcome == .stored {
        unsafe queues[0].frames += 1
        unsafe queues[0].octets += frame.count
        statistics.countStoredUndersize(frame.count)
        return true
      }
    }
    statistics.countUndersize(length)
    return true
  }
}
