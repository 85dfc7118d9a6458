import CIxy

/// A receive queue with a split ring.
///
/// Each descriptor has one buffer, with the device's header in the bytes before it. A received frame leaves
/// with its buffer as a `Packet`, and its descriptor becomes available again with a fresh one. Entry `i` always
/// has descriptor `i` modulo their number: where the device goes out of order, those behind the oldest that it
/// still has wait for that one.
@safe public struct VirtioSplitReceiveQueue: ~Copyable {
  @usableFromInline let ring: VirtioSplitRing
  @usableFromInline let format: VirtioFormat
  /// The buffer of each descriptor; nil when it is not available.
  @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
  /// The number of buffers that the device has: one for each descriptor, or for two where they are chained.
  @usableFromInline let count: Int
  @usableFromInline let pool: PoolReference
  /// IOVA of the header = pointer to the buffer + this.
  @usableFromInline let toDevice: UInt64
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next entry that the device will have used.
  @usableFromInline var next = 0
  /// The next entry to make available: `next` + `count`, unless the device goes out of order.
  @usableFromInline var offered = 0
  /// The next entry to tell the device of.
  @usableFromInline var published = 0
  /// What the device did wrong; nothing is received any more.
  @usableFromInline var fault: VirtioFault?
  private let index: Int
  private let device: VirtioDevice
  private let mempool: Mempool
  /// Where frames go that fill several buffers.
  private let large: Mempool

  init(_ setup: VirtioQueueSetup, mempool: Mempool, large: Mempool) {
    format = setup.format
    ring = VirtioSplitRing(setup.memory, setup.doorbell, hasEvents: setup.format.hasEvents)
    device = setup.device
    index = setup.index
    unsafe counters = unsafe setup.counters
    self.mempool = mempool
    self.large = large
    unsafe pool = unsafe mempool.state
    toDevice = unsafe pool.pointee.iovaOffset &- UInt64(format.headerSize)
    count = setup.capacity
    unsafe buffers = .allocate(capacity: count)
    unsafe buffers.initialize(repeating: nil, count: count)
    for id in 0..<count { describe(id) }
    ring.offerAll(of: count)
    refill()
    finish(count: 0, bytes: 0)
  }

  deinit {
    var loans: [VirtioLoan] = []
    for id in 0..<count {
      if let buffer = unsafe buffers[id] {
        loans.append(unsafe VirtioLoan(buffer: buffer, pool: pool))
      }
    }
    unsafe buffers.deallocate()
    device.close(index, loans)
  }

  /// Writes what never changes in a descriptor: what is there is announced, and no more.
  private func describe(_ id: Int) {
    // Bit 1: the device writes. Bit 0: the next descriptor belongs to it.
    let (header, frame) = (UInt64(format.headerSize), UInt64(mempool.bufferSize))
    if format.isChained {
      unsafe ring.descriptors[id].high = header | 0b11 << 32 | UInt64(id + count) << 48
      unsafe ring.descriptors[id + count].high = frame | 0b10 << 32
    } else {
      unsafe ring.descriptors[id].high = header + frame | 0b10 << 32
    }
  }

  /// Makes descriptors available again, as far as they are free and the mempool has buffers.
  @usableFromInline @inline(never) mutating func refill() {
    while offered != next + count, unsafe pool.pointee.top > 0 {
      let id = offered & (count - 1)
      if unsafe buffers[id] != nil { break }
      unsafe pool.pointee.top -= 1
      let buffer = unsafe pool.pointee.stack[pool.pointee.top]
      unsafe buffers[id] = unsafe buffer
      let address = UInt64(UInt(bitPattern: buffer)) &+ toDevice
      unsafe ring.descriptors[id].low = address
      if format.isChained {
        unsafe ring.descriptors[id + count].low = address + UInt64(format.headerSize)
      }
      offered += 1
    }
  }

  /// Whether a descriptor is the device's.
  private func isLent(_ id: Int) -> Bool {
    // The last entry that had it.
    let entry = offered - 1 - ((offered - 1 - id) & (count - 1))
    return unsafe id < count && entry < published && buffers[id] != nil
  }

  /// How far the device has got; it cannot have used more than it has.
  @usableFromInline mutating func arrived() -> Int {
    if offered != next &+ count { refill() }
    let pending = ring.pending(since: next)
    if pending > published - next {
      fault = .tooMany(pending, of: published - next)
      return next
    }
    return next + pending
  }

  /// Gives the device the buffers that are ready for it, and counts what was received.
  @inlinable @inline(__always) mutating func finish(count packets: Int, bytes: Int) {
    if packets == 0 && offered == published { return }
    ring.silence()
    if offered != published { ring.publish(from: published, to: offered) }
    published = offered
    unsafe counters.count(packets)
    unsafe (counters + 1).count(bytes)
  }

  /// What to throw for a fault.
  @usableFromInline @inline(never) func error(_ fault: VirtioFault) -> DeviceError {
    device.error(fault, in: index)
  }

  // MARK: - Frames that are not simply whole

  /// Takes the next frame, which does not fill just one buffer as it should, or out of order.
  @usableFromInline @inline(never) mutating func takeOdd(arrived end: Int) -> VirtioOddFrame {
    let entry = unsafe ring.usedEntry(next)
    let (id, length) = unsafe (Int(ixy_load32(entry)), Int(ixy_load32(entry + 4)))
    guard isLent(id), let buffer = unsafe buffers[id] else {
      fault = .unknown(id)
      return .wait
    }
    let header = unsafe buffer - format.headerSize
    let isLong = length >= format.headerSize
    let parts = format.isMergeable && isLong ? unsafe Int(format.bufferCount(header)) : 1
    if parts > count {
      fault = .tooLong(parts, of: count)
      return .wait
    }
    // The rest of the frame comes with it, or will come.
    if parts > end - next { return .wait }
    let isPlain = unsafe isLong && format.isPlain(header) && parts > 0
    // So does a good one for which there is no buffer; what is dropped needs none.
    if isPlain && large.available == 0 { return .wait }
    return gather(max(parts, 1), isPlain: isPlain)
  }

  /// Copies the buffers of a frame into one of the large pool, and gives them back to their own.
  ///
  /// - Parameters:
  ///   - parts: The number of buffers, all used by the device.
  ///   - isPlain: Whether the frame is good so far.
  /// - Returns: The frame, if it is good to its end.
  private mutating func gather(_ parts: Int, isPlain: Bool) -> VirtioOddFrame {
    var frame = VirtioGatheredFrame(isPlain ? large : nil, format, room: mempool.bufferSize)
    for _ in 0..<parts {
      let entry = unsafe ring.usedEntry(next)
      let (id, size) = unsafe (Int(ixy_load32(entry)), Int(ixy_load32(entry + 4)))
      guard isLent(id), let buffer = unsafe buffers[id] else {
        fault = .unknown(id)
        return .wait
      }
      unsafe frame.append(buffer, size)
      unsafe buffers[id] = nil
      unsafe pool.give(buffer)
      next += 1
      refill()
    }
    if let packet = frame.finish() { return .packet(packet) }
    unsafe (counters + 2).count(1)
    return .dropped
  }
}

extension VirtioSplitReceiveQueue: ReceiveQueue {
  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  ///
  /// - Parameters:
  ///   - batch: Where they go.
  ///   - max: The most to receive.
  /// - Returns: The number of packets appended.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when the device breaks the ring's rules.
  @discardableResult
  public mutating func receive(into batch: inout PacketBatch, max: Int = .max)
    throws(DeviceError) -> Int
  {
    if let fault { throw error(fault) }
    if batch.isEmpty { (batch.head, batch.tail) = (0, 0) }
    let before = batch.tail
    let limit = before &+ min(max, batch.capacity &- before)
    if limit <= before { return 0 }
    _ = unsafe pool.stock(limit &- before)
    let arrived = arrived()
    var bytes = 0
    var end = unsafe batch.base + before
    frames: while batch.tail != limit {
      let run = run(limit &- batch.tail, arrived: arrived)
      if run == 0 { break }
      let count = poll(run, sharesPool: false, &bytes) { packet in
        unsafe end.initialize(to: packet)
        unsafe end += 1
      }
      batch.tail &+= count
      if count == run { continue }
      switch takeOdd(arrived: arrived) {
      case .packet(let packet):
        bytes &+= packet.count
        unsafe end.initialize(to: packet)
        unsafe end += 1
        batch.tail &+= 1
      case .dropped: continue
      case .wait: break frames
      }
    }
    finish(count: batch.tail &- before, bytes: bytes)
    if let fault, batch.tail == before { throw error(fault) }
    return batch.tail &- before
  }
}

extension VirtioSplitReceiveQueue {
  /// How many frames can be taken in one go.
  ///
  /// - Parameters:
  ///   - wanted: The most frames.
  ///   - end: How far the device has got.
  /// - Returns: As many as are wanted, are there, can be replaced, and come before the ring begins again.
  @inlinable @inline(__always) func run(_ wanted: Int, arrived end: Int) -> Int {
    let ready = min(wanted, end &- next, count &- (next & (count &- 1)))
    return unsafe min(ready, pool.pointee.top)
  }

  /// Gives frames to `sink` up to the first that is not simply whole, or out of order.
  ///
  /// - Parameters:
  ///   - limit: The most frames: what `run` allows.
  ///   - sharesPool: Whether `sink` uses the mempool, too.
  ///   - bytes: The frames' bytes are added to it.
  ///   - sink: Takes each frame.
  /// - Returns: The number of frames.
  @inlinable @inline(__always) mutating func poll(
    _ limit: Int, sharesPool: Bool, _ bytes: inout Int, _ sink: (consuming Packet) -> Void
  ) -> Int {
    // All descriptors are the device's in their order, as long as it uses them so.
    if offered != next &+ count || format.isChained { return 0 }
    // Locals: nothing to load again in the loop.
    let first = next & (count &- 1)
    let (descriptors, buffers) = unsafe (ring.descriptors + first, buffers + first)
    let (used, format, toDevice) = unsafe (ring.usedEntry(next), format, toDevice)
    let (toHeader, least) = (format.toHeader, UInt32(truncatingIfNeeded: format.least))
    // One buffer has no more, whatever length several of them may have.
    let most = unsafe UInt32(truncatingIfNeeded: min(format.longest, pool.pointee.bufferSize) &- 14)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    var (i, sum, top) = unsafe (0, 0, pool.pointee.top)
    while i != limit {
      if sharesPool && top == 0 { break }
      // Identifier and length are read once each, checked, and only then used.
      let entry = unsafe used + 8 &* i
      let (id, length) = unsafe (ixy_load32(entry), ixy_load32(entry + 4))
      if id != UInt32(truncatingIfNeeded: first &+ i) { break }
      // Wraps to a large number where it is too short.
      let payload = length &- least
      let buffer = unsafe buffers[i].unsafelyUnwrapped
      let header = unsafe buffer + toHeader
      if unsafe payload > most || !format.isUsual(header) { break }
      let size = payload &+ 14
      let packet = unsafe Packet(
        buffer: buffer, pool: pool, length: size, hash: format.hash(header))
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe descriptors[i].low = UInt64(UInt(bitPattern: fresh)) &+ toDevice
      sum &+= Int(size)
      i &+= 1
      if sharesPool { unsafe pool.pointee.top = top }
      sink(packet)
      if sharesPool { top = unsafe pool.pointee.top }
    }
    unsafe pool.pointee.top = top
    bytes &+= sum
    next &+= i
    offered &+= i
    return i
  }
}
