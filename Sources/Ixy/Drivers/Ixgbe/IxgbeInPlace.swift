import CIxy
import Glibc

/// Forwards from a receive queue to a transmit queue in place: both have the same ring and the same buffers.
///
/// A frame stays in its descriptor from its arrival to its departure: no mempool, and half the work of queues that
/// pass packets. So all frames of the receive queue leave through the one transmit queue, in their order, or are
/// dropped: none can be kept, sent elsewhere, sent twice, or made anew. Whoever needs that takes queues.
@safe public struct IxgbeInPlaceForwarder: ~Copyable {
  @usableFromInline let ring: DescriptorRing
  @usableFromInline let bufferSize: Int
  @usableFromInline let iovaOffset: UInt64
  /// Where the device writes how far it has sent: the descriptors before are to be received into again.
  @usableFromInline let head: UnsafeMutableRawPointer
  @usableFromInline let receiveDoorbell: Doorbell
  @usableFromInline let transmitDoorbell: Doorbell
  @usableFromInline let received: UnsafeMutablePointer<UInt64>
  @usableFromInline let sent: UnsafeMutablePointer<UInt64>
  /// The next descriptor that will have been received into.
  @usableFromInline var next = 0
  /// The oldest descriptor that is not known to be sent.
  @usableFromInline var clean = 0
  /// In the middle of a frame that is thrown away.
  @usableFromInline var isDiscarding = false
  fileprivate let headMemory: DMAMemory
  private let pool: Mempool
  private let source: (device: IxgbeDevice, ring: IxgbeRingRegisters)
  private let target: (device: IxgbeDevice, ring: IxgbeRingRegisters)

  /// Both rings filled; the devices are not told yet.
  fileprivate init(
    _ ring: consuming DescriptorRing, _ pool: Mempool, _ headMemory: consuming DMAMemory,
    from source: (device: IxgbeDevice, ring: IxgbeRingRegisters),
    to target: (device: IxgbeDevice, ring: IxgbeRingRegisters)
  ) {
    unsafe head = headMemory.base
    unsafe ixy_store32(head, 0)
    bufferSize = pool.bufferSize
    unsafe iovaOffset = pool.state.pointee.iovaOffset
    receiveDoorbell = Doorbell(source.device.bar, source.ring.tail)
    transmitDoorbell = Doorbell(target.device.bar, target.ring.tail)
    unsafe received = source.device.take(source.ring)
    unsafe sent = target.device.take(target.ring)
    self.ring = ring
    self.pool = pool
    self.headMemory = headMemory
    self.source = source
    self.target = target
    for i in 0...self.ring.mask {
      unsafe pool.state.pointee.top -= 1
      let buffer = unsafe pool.state.pointee.stack[pool.state.pointee.top]
      unsafe (self.ring.buffers + i).initialize(to: buffer)
      unsafe self.ring.descriptors[i] = unsafe Descriptor(pool.state.iova(buffer), 0)
    }
  }

  deinit {
    // Before the ring is free: its next owner may want the head, or not.
    target.device.bar[target.ring.headReport] = 0
    // Both, also when the first does not stop: what is not stopped could not be taken again.
    let hasStopped = [source, target].map { $0.device.stop($0.ring) }
    if hasStopped.contains(false) {
      _ = unsafe Unmanaged.passRetained(headMemory.block)
      // The mempool leaks its memory, too: its buffers are not back.
      return ring.leak()
    }
    for i in 0...ring.mask { unsafe pool.state.give(ring.buffers[i]) }
  }

  /// Receives, shows each frame to `body`, and sends it or not.
  ///
  /// - Parameters:
  ///   - max: The most frames to receive.
  ///   - body: Looks at a frame, changes it, and says what becomes of it.
  /// - Returns: The number of frames received.
  @inlinable @inline(__always) @discardableResult
  public mutating func forward(max: Int, _ body: (inout InPlaceFrame) -> Verdict) -> Int {
    cleanUp()
    if isDiscarding && !discard() { return 0 }
    var (count, bad) = (0, 0)
    while count < max && bad <= ring.mask {
      // Up to where the ring wraps, and never to what is still to be sent.
      let run = min(max &- count, ring.mask &+ 1 &- next, (clean &- next &- 1) & ring.mask)
      if run == 0 { break }
      let taken = poll(run, body)
      count &+= taken
      if taken < run && !discard() { break }
      bad &+= taken < run ? 1 : 0
    }
    return count
  }

  @inlinable @inline(__always)
  mutating func poll(_ limit: Int, _ body: (inout InPlaceFrame) -> Verdict) -> Int {
    let (descriptors, buffers) = unsafe (ring.descriptors, ring.buffers)
    let (capacity, offset) = (bufferSize, iovaOffset)
    let longest = UInt64(truncatingIfNeeded: capacity &- 14)
    var (i, bytes, frames, sentBytes) = (next, 0, 0, 0)
    let end = i &+ limit
    while i != end {
      // SAFETY: `i` is in the ring. Status, errors and length are read together, and once.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      let payload = IxgbeLegacyDescriptor.payload(word)
      if payload > longest { break }
      let buffer = unsafe buffers[i]
      let length = UInt32(truncatingIfNeeded: payload) &+ 14
      var frame = unsafe InPlaceFrame(buffer: buffer, capacity: capacity, length: length)
      let verdict = body(&frame)
      precondition(unsafe frame.buffer == buffer, "a frame of another ring")
      // Without a length the device passes over a descriptor and sends nothing.
      let rest = verdict == .send ? frame.length : 0
      unsafe descriptors[i] = Descriptor(
        UInt64(UInt(bitPattern: buffer)) &+ offset, IxgbeLegacyDescriptor.command(length: rest))
      bytes &+= Int(length)
      sentBytes &+= Int(rest)
      frames &+= verdict == .send ? 1 : 0
      i &+= 1
    }
    let count = i &- next
    if count > 0 {
      unsafe received.count(count)
      unsafe (received + 1).count(bytes)
      unsafe sent.count(frames)
      unsafe (sent + 1).count(sentBytes)
      commit(upTo: i)
    }
    return count
  }

  /// Gives the descriptors before `end` to the transmitter; it reports the last of each run of 32.
  @inlinable @inline(__always) mutating func commit(upTo end: Int) {
    var last = next | (IxgbeTransmitQueue.period &- 1)
    while last < end {
      unsafe ring.descriptors[last].high |= IxgbeTransmitDescriptor.reportStatus
      last &+= IxgbeTransmitQueue.period
    }
    next = end & ring.mask
    transmitDoorbell.ring(next)
  }

  /// Gives the receiver the descriptors that the transmitter is done with.
  @inlinable @inline(__always) mutating func cleanUp() {
    let head = unsafe Int(ixy_load32(head))
    if head == clean { return }
    if head > ring.mask || (head &- clean) & ring.mask > (next &- clean) & ring.mask {
      return refuseHead()
    }
    clean = head
    receiveDoorbell.ring((head &- 1) & ring.mask)
  }

  /// The device has sent more than there was: nothing is taken back, so that the ring runs dry.
  @usableFromInline @inline(never) func refuseHead() { unsafe (received + 2).count(1) }

  /// Passes over the descriptors of a frame that cannot be used; see `IxgbeReceiveQueue.discard()`.
  @usableFromInline @inline(never) mutating func discard() -> Bool {
    let first = next
    for _ in 0..<((clean &- first &- 1) & ring.mask) {
      let word = unsafe ixy_load64(UnsafeRawPointer(ring.descriptors + next) + 8)
      let isGood = IxgbeLegacyDescriptor.payload(word) <= UInt64(bufferSize - 14)
      if word & IxgbeLegacyDescriptor.done == 0 || isGood && !isDiscarding { break }
      if !isDiscarding { unsafe (received + 2).count(1) }
      unsafe ring.descriptors[next] = unsafe Descriptor(
        UInt64(UInt(bitPattern: ring.buffers[next])) &+ iovaOffset,
        IxgbeLegacyDescriptor.command(length: 0))
      commit(upTo: next + 1)
      isDiscarding = word & IxgbeLegacyDescriptor.endOfPacket == 0
      if !isDiscarding { break }
    }
    return next != first && !isDiscarding
  }

  /// Whether no frame can be received before one is sent: frames may wait, for which no interrupt comes any more.
  public var isFull: Bool { (clean &- next &- 1) & ring.mask == 0 }

  /// The number of descriptors that the device has not sent yet.
  public func pending() -> Int {
    let head = Int(truncatingIfNeeded: target.device.bar[target.ring.head])
    return (next &- head) & ring.mask
  }
}

extension IxgbeRingRegisters {
  /// TDWBAL, Transmit Descriptor Completion Write Back Address Low; bit 0 switches it on.
  fileprivate var headReport: Register<UInt32> { Register(at: baseLow.offset + 0x38) }
  /// TDWBAH, the high half.
  fileprivate var headReportHigh: Register<UInt32> { Register(at: baseLow.offset + 0x3C) }
  /// DCA_TXCTRL, DCA Transmit Control.
  fileprivate var dcaTxctrl: Register<UInt32> { Register(at: baseLow.offset + 0x0C) }
}

extension IxgbeDevice {
  /// Takes a receive queue of this card and a transmit queue of another, or this one; they share a domain.
  ///
  /// - Parameters:
  ///   - receive: The receive queue, which must not be taken.
  ///   - target: The card that sends.
  ///   - transmit: Its transmit queue, which must not be taken.
  /// - Returns: The forwarder, receiving.
  /// - Throws: When there is no memory, or a device does not start its ring.
  public func takeInPlaceForwarder(
    receiveQueue receive: Int = 0, to target: IxgbeDevice, transmitQueue transmit: Int = 0
  ) throws(DeviceError) -> IxgbeInPlaceForwarder {
    precondition(domain === target.domain, "cards of different domains")
    precondition(0..<configuration.receiveQueues ~= receive, "a queue that was not asked for")
    precondition(
      0..<target.configuration.transmitQueues ~= transmit, "a queue that was not asked for")
    let entries = configuration.ringEntries
    let bufferSize = max(configuration.bufferSize, target.configuration.bufferSize)
    // DATASHEET-UNSEEN: a published driver found that the head has to be on 16 bytes; these are on 128.
    let forwarder = IxgbeInPlaceForwarder(
      try DescriptorRing(entries: entries, in: domain),
      try Mempool(domain: domain, buffers: entries, bufferSize: bufferSize),
      try domain.allocate(64), from: (self, .receive(receive)), to: (target, .transmit(transmit)))
    try target.start(
      .transmit(transmit), reportingHeadAt: forwarder.headMemory.iova, forwarder.ring.memory)
    try start(.receive(receive), bufferSize: bufferSize, legacy: forwarder.ring.memory)
    forwarder.receiveDoorbell.ring(entries - 1)
    return forwarder
  }

  /// Starts a transmit ring whose head the device writes to memory, and DD nowhere (§7.2.3.5.2).
  fileprivate func start(
    _ ring: IxgbeRingRegisters, reportingHeadAt iova: UInt64, _ memory: borrowing DMAMemory
  ) throws(DeviceError) {
    try waitUntilOff(ring)
    // The write of the head must not overtake the reads of the frames before it.
    bar[ring.dcaTxctrl][11...11] = 0
    bar[ring.headReportHigh] = UInt32(truncatingIfNeeded: iova >> 32)
    bar[ring.headReport] = UInt32(truncatingIfNeeded: iova) | 1
    bar[ring.control] = 36 | 8 << 8
    try start(ring, memory)
  }

  /// Starts a receive ring of legacy descriptors; see `takeReceiveQueue(_:mempool:)`.
  fileprivate func start(
    _ ring: IxgbeRingRegisters, bufferSize: Int, legacy memory: borrowing DMAMemory
  ) throws(DeviceError) {
    try waitUntilOff(ring)
    var split = bar[ring.srrctl]
    split.bufferSize = bufferSize
    split.bits[25...27] = 0
    split.bits[28...28] = configuration.receiveQueues > 1 ? 1 : 0
    bar[ring.srrctl] = split
    bar[ring.dcaRxctrl][12...12] = 0
    try start(ring, memory)
    if bar[IxgbeRegister.rxctrl][0...0] == 0 { try startReceiver() }
  }
}

/// The second half of a legacy descriptor: as received (DD, EOP, errors and length), and as sent (§7.2.3.2.2).
@usableFromInline enum IxgbeLegacyDescriptor {
  /// DD.
  @inlinable @inline(__always) static var done: UInt64 { 1 << 32 }
  /// EOP.
  @inlinable @inline(__always) static var endOfPacket: UInt64 { 1 << 33 }
  /// Bits 40 to 45 tell errors of the frame, those above of the checksums that it carries.
  @inlinable @inline(__always) static var errors: UInt64 { 0x3F << 40 }

  /// As `IxgbeReceiveDescriptor.payload(_:)`: more than any buffer can hold when it is no good frame.
  @inlinable @inline(__always) static func payload(_ word: UInt64) -> UInt64 {
    word & (0xFFFF | errors | endOfPacket | done) &- (14 | endOfPacket | done)
  }

  /// A frame of `length` bytes in one buffer: EOP and IFCS.
  @inlinable @inline(__always) static func command(length: UInt32) -> UInt64 {
    UInt64(length) | 0x0300_0000
  }
}
