import CIxy
import Ixy

/// Takes frames from the queues' buffers and sends them (reference, section 6; descriptors, section 2).
///
/// A frame stays in its ring until all of it is there and the wire can take it.
@safe final class TransmitEngine {
  // SAFETY: a queue's number is checked where it comes in, and those in `enabledQueues` are below
  // `queueCount`. A pointer of the driver's memory comes from its `DMATable` with the length that
  // is used, and none outlives `generation`.
  /// The number of queues.
  static let queueCount = 128
  /// The longest frame that goes out, in bytes without FCS.
  static let longestFrame = 16 << 10

  private let registers: RegisterFile
  private let dma: DMATable
  private let statistics: PortStatistics
  private let interrupts: InterruptUnit
  private let receiver: ReceiveEngine
  private let queues = UnsafeMutablePointer<TransmitQueue>.allocate(capacity: queueCount)
  private let gatherer: TransmitGatherer
  private let headers = UnsafeMutableRawPointer.allocate(
    byteCount: Segmentation.longestHeaders, alignment: 64)
  private let padded = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)

  private var enabledQueues: [Int] = []
  /// The place in `enabledQueues` of the queue whose turn it is.
  private var turn = 0
  private var isStale = true
  private var generation: UInt64 = 0
  private var isTransmitting = false
  private var isLooped = false
  private var insertsFCS = true
  private var pads = true
  private var vlanType: UInt16 = 0x8100
  private var masks = Segmentation.FlagMasks()
  /// A frame is being cut: `segmentation`, with its queue and the number of its descriptors.
  private var isSegmenting = false
  private var segmentation: Segmentation?
  private var segmentedQueue = 0
  private var segmentedParts = 0

  /// Frames whose descriptors made no sense, or whose memory is not mapped: retired, and not sent.
  private(set) var rejectedFrames: UInt64 = 0

  init(
    registers: RegisterFile, dma: DMATable, statistics: PortStatistics,
    interrupts: InterruptUnit, receiver: ReceiveEngine
  ) {
    self.registers = registers
    self.dma = dma
    self.statistics = statistics
    self.interrupts = interrupts
    self.receiver = receiver
    gatherer = TransmitGatherer(dma: dma)
    unsafe queues.initialize(repeating: TransmitQueue(), count: Self.queueCount)
  }

  deinit {
    unsafe queues.deallocate()
    unsafe headers.deallocate()
    unsafe padded.deallocate()
  }

  // MARK: What the driver does

  /// TXDCTL.ENABLE rose: the ring is where the registers say now.
  func enable(queue: Int) {
    precondition(queue >= 0 && queue < Self.queueCount)
    unsafe queues[queue] = TransmitQueue(registers, bank: EngineRegister.transmitBank(queue))
    queuesChanged(queue)
  }

  /// TXDCTL.ENABLE fell: what is in the ring is not sent.
  func disable(queue: Int) {
    precondition(queue >= 0 && queue < Self.queueCount)
    unsafe queues[queue] = TransmitQueue()
    queuesChanged(queue)
  }

  /// TDT was written.
  func setTail(queue: Int, _ value: UInt32) {
    precondition(queue >= 0 && queue < Self.queueCount)
    guard unsafe queues[queue].isEnabled else { return }
    unsafe queues[queue].incomplete = 0
    unsafe queues[queue].ring.setTail(value)
  }

  /// TDH was written.
  func setHead(queue: Int, _ value: UInt32) {
    precondition(queue >= 0 && queue < Self.queueCount)
    guard unsafe queues[queue].isEnabled else { return }
    if segmentedQueue == queue { isSegmenting = false }
    unsafe queues[queue].incomplete = 0
    unsafe queues[queue].ring.setHead(value)
  }

  /// Back to power-on: no queue is enabled.
  func reset() {
    for queue in 0..<Self.queueCount { unsafe queues[queue] = TransmitQueue() }
    queuesChanged(segmentedQueue)
  }

  /// A register of the transmit path was written.
  func configurationChanged() { isStale = true }

  private func queuesChanged(_ queue: Int) {
    if segmentedQueue == queue { isSegmenting = false }
    enabledQueues = (0..<Self.queueCount).filter { unsafe queues[$0].isEnabled }
    turn = 0
    isStale = true
  }

  // MARK: A poll

  /// Sends up to `limit` frames.
  ///
  /// - Returns: How much was done: frames and contexts; 0 when there was nothing to do.
  func poll(_ wire: any Wire, limit: Int) -> Int {
    prepare()
    gatherer.refill()
    guard isTransmitting, !enabledQueues.isEmpty else { return 0 }
    var work = isSegmenting ? sendSegments(wire, limit) : 0
    if !isSegmenting {
      // Queues take turns at being the first.
      turn = turn + 1 < enabledQueues.count ? turn + 1 : 0
      for i in 0..<enabledQueues.count where work < limit && !isSegmenting {
        let place = turn + i
        let count = enabledQueues.count
        let queue = enabledQueues[place < count ? place : place - count]
        if unsafe queues[queue].ring.owned > 0 { work += send(queue, wire, limit - work) }
      }
    }
    if work > 0 { finish() }
    return work
  }

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
    isLooped = hlreg0 & EngineBit.loopback != 0
    insertsFCS = hlreg0 & EngineBit.transmitCRC != 0
    pads = hlreg0 & EngineBit.padTransmitted != 0
    let control = registers[EngineRegister.dmatxctl]
    isTransmitting = control & EngineBit.transmitEnable != 0
    vlanType = UInt16(truncatingIfNeeded: control >> 16)
    let flags = registers[EngineRegister.dtxtcpflgl]
    masks.first = UInt16(truncatingIfNeeded: flags & 0xFFF)
    masks.middle = UInt16(truncatingIfNeeded: flags >> 16 & 0xFFF)
    masks.last = UInt16(truncatingIfNeeded: registers[EngineRegister.dtxtcpflgh] & 0xFFF)
    for queue in enabledQueues {
      unsafe queues[queue].refresh(registers, bank: EngineRegister.transmitBank(queue))
      unsafe queues[queue].allowsPlain = insertsFCS && !isLooped
    }
  }

  /// Reports what was done.
  private func finish() {
    for queue in enabledQueues {
      let (frames, octets) = unsafe (queues[queue].frames, queues[queue].octets)
      if frames > 0 {
        statistics.addSent(queue: queue, frames: frames, octets: octets)
        unsafe queues[queue].frames = 0
        unsafe queues[queue].octets = 0
      }
      let bank = EngineRegister.transmitBank(queue)
      if unsafe queues[queue].publish(registers, bank: bank, dma) {
        interrupts.transmitted(queue: queue)
      }
    }
  }

  // MARK: One queue

  private func send(_ index: Int, _ wire: any Wire, _ limit: Int) -> Int {
    let queue = unsafe queues + index
    var work = 0
    while work < limit, unsafe queue.pointee.ring.owned > 0, !isSegmenting {
      guard isLooped || wire.canSend else { break }
      // One buffer, in the mapping of the last, and nothing to change: it goes out from where it is.
      let descriptor = unsafe queue.pointee.ring.next
      if unsafe queue.pointee.ring.ready > 0,
        case let command = unsafe TransmitCommand(bits: ixy_load64(descriptor.advanced(by: 8))),
        command.isPlain, unsafe queue.pointee.takesPlain,
        command.length >= ReceiveEngine.shortestFrame, command.length <= Self.longestFrame,
        let frame = unsafe queue.pointee.window.pointer(
          to: ixy_load64(descriptor), count: command.length)
      {
        unsafe wire.send(UnsafeRawBufferPointer(start: frame, count: command.length))
        unsafe count(queue, frame, command.length)
        unsafe queue.pointee.complete(descriptor, command)
        unsafe queue.pointee.ring.pass(descriptor)
        work &+= 1
      } else {
        let done = sendSlowly(index, wire, limit - work)
        if done == 0 { break }
        work += done
      }
    }
    return work
  }

  @inline(__always)
  private func count(
    _ queue: UnsafeMutablePointer<TransmitQueue>, _ frame: UnsafeRawPointer, _ count: Int
  ) {
    unsafe queue.pointee.frames &+= 1
    unsafe queue.pointee.octets &+= count
    unsafe statistics.countSent(
      count &+ PortStatistics.fcs, start: frame.loadUnaligned(as: UInt64.self).littleEndian)
  }

  /// Handles all that is not a plain frame in the mapping of the last one.
  ///
  /// - Returns: How much was done; 0 when the frame is not complete, or enough was done in this poll.
  @inline(never)
  private func sendSlowly(_ index: Int, _ wire: any Wire, _ limit: Int) -> Int {
    let queue = unsafe queues + index
    guard let (address, first) = unsafe gatherer.readFirst(queue) else { return 0 }
    if unsafe queue.pointee.isDiscarding {
      unsafe queue.pointee.isDiscarding = !first.has(TransmitCommand.endOfPacket)
    } else if first.isContext {
      unsafe queue.pointee.setContext(
        TransmitContext(low: address, high: first.bits), first.context)
    } else if first.isPlain, let found = dma.window(at: address, forWriting: false) {
      // The next frame is likely in the same mapping.
      unsafe queue.pointee.window = found
      return sendGathered(index, wire, limit)
    } else {
      return sendGathered(index, wire, limit)
    }
    unsafe gatherer.retire(queue, 1)
    return 1
  }

  private func sendGathered(_ index: Int, _ wire: any Wire, _ limit: Int) -> Int {
    let queue = unsafe queues + index
    switch unsafe gatherer.gather(queue) {
    case .incomplete: return 0
    case .nothing(let count):
      unsafe gatherer.retire(queue, count)
      return 1
    case .rejected(let count):
      rejectedFrames += 1
      unsafe gatherer.retire(queue, count)
      return 1
    case .frame(let count, let length):
      let frame = unsafe gatherer.frame(length)
      if gatherer.first.isSegmented {
        return unsafe startSegments(index, frame, count, wire, limit)
      }
      unsafe finishFrame(queue, frame, gatherer.last(of: count), wire)
      unsafe gatherer.retire(queue, count)
      return 1
    }
  }

  // MARK: Changing

  /// Sends a gathered frame with what its descriptors ask for.
  private func finishFrame(
    _ queue: UnsafeMutablePointer<TransmitQueue>, _ gathered: UnsafeMutableRawBufferPointer,
    _ last: TransmitCommand, _ wire: any Wire
  ) {
    let first = gatherer.first
    var frame = unsafe gathered
    var tag = last.tag
    if first.has(TransmitCommand.isAdvanced) {
      let context = unsafe queue.pointee.context(first.context)
      tag = context.tag
      if first.has(TransmitCommand.insertHeaderChecksum) {
        unsafe TransmitOffload.insertHeaderChecksum(frame, context)
      }
      if first.has(TransmitCommand.insertTransportChecksum) {
        unsafe TransmitOffload.insertTransportChecksum(frame, context)
      }
    } else if first.has(TransmitCommand.insertChecksum) {
      unsafe TransmitOffload.insertSum(frame, from: first.checksumStart, at: first.checksumOffset)
    }
    if first.has(TransmitCommand.insertTag) || last.has(TransmitCommand.insertTag) {
      unsafe frame = unsafe TransmitOffload.insertTag(frame, type: vlanType, tag: tag)
    }
    if insertsFCS && last.has(TransmitCommand.insertFCS) {
      unsafe emit(queue, frame, wire)
    } else if let whole = unsafe TransmitOffload.withoutFCS(frame) {
      unsafe emit(queue, whole, wire, pads: false)
    } else {
      // With a wrong FCS the other end drops it.
      rejectedFrames += 1
    }
  }

  private func startSegments(
    _ index: Int, _ frame: UnsafeMutableRawBufferPointer, _ count: Int, _ wire: any Wire,
    _ limit: Int
  ) -> Int {
    let queue = unsafe queues + index
    segmentation = unsafe Segmentation(
      frame, headers: headers, context: queue.pointee.context(gatherer.first.context),
      longest: Self.longestFrame - 4, masks: masks)
    if segmentation == nil {
      rejectedFrames += 1
      unsafe gatherer.retire(queue, count)
      return 1
    }
    isSegmenting = true
    segmentedQueue = index
    segmentedParts = count
    return sendSegments(wire, limit)
  }

  /// Sends what the wire takes of the frame that is being cut.
  private func sendSegments(_ wire: any Wire, _ limit: Int) -> Int {
    let queue = unsafe queues + segmentedQueue
    let first = gatherer.first
    let tag = unsafe queue.pointee.context(first.context).tag
    var work = 0
    while work < limit, isSegmenting, isLooped || wire.canSend,
      var segment = unsafe segmentation?.next()
    {
      if first.has(TransmitCommand.insertTag) {
        unsafe segment = unsafe TransmitOffload.insertTag(segment, type: vlanType, tag: tag)
      }
      unsafe emit(queue, segment, wire)
      work &+= 1
      if segmentation?.isFinished == true {
        isSegmenting = false
        unsafe gatherer.retire(queue, segmentedParts)
      }
    }
    return work
  }

  /// Puts a frame on the wire, or gives it to our own receiver.
  private func emit(
    _ queue: UnsafeMutablePointer<TransmitQueue>, _ frame: UnsafeMutableRawBufferPointer,
    _ wire: any Wire, pads wanted: Bool = true
  ) {
    guard var start = frame.baseAddress else { return }
    var size = frame.count
    if size < ReceiveEngine.shortestFrame && pads && wanted {
      // What comes after it in memory may be the next segment's.
      unsafe padded.copyMemory(from: start, byteCount: size)
      unsafe (padded + size).initializeMemory(
        as: UInt8.self, repeating: 0, count: ReceiveEngine.shortestFrame - size)
      unsafe (start, size) = unsafe (padded, ReceiveEngine.shortestFrame)
    }
    let bytes = unsafe UnsafeRawBufferPointer(start: start, count: size)
    if isLooped { unsafe receiver.deliverLoopback(bytes) } else { unsafe wire.send(bytes) }
    unsafe count(queue, start, size)
  }
}
