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
  @usableFromInline var fault: DeviceError?
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
      fault = misbehaved("says that it used \(pending) of \(published - next) buffers")
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

  private func misbehaved(_ how: String) -> DeviceError {
    .misbehaved(device: device.name, "receive queue \(index / 2) \(how)")
  }

  // MARK: - Frames that are not simply whole

  /// Takes the next frame, which does not fill just one buffer as it should, or out of order.
  @usableFromInline @inline(never) mutating func takeOdd(arrived end: Int) -> VirtioOddFrame {
    let entry = unsafe ring.usedEntry(next)
    let (id, length) = unsafe (Int(ixy_load32(entry)), Int(ixy_load32(entry + 4)))
    guard isLent(id), let buffer = unsafe buffers[id] else {
      fault = misbehaved("used descriptor \(id), which it does not have")
      return .wait
    }
    let header = unsafe buffer - format.headerSize
    let parts =
      unsafe format.isMergeable && length >= format.headerSize
      ? Int(format.bufferCount(header)) : 1
    if parts > count {
      fault = misbehaved("has a frame of \(parts) buffers, of \(count)")
      return .wait
    }
    // The rest of the frame comes with it, or will come.
    if parts > end - next { return .wait }
    let isPlain = unsafe length >= format.headerSize && format.isPlain(header)
    return gather(max(parts, 1), isPlain: isPlain && parts > 0)
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
        fault = misbehaved("used descriptor \(id), which it does not have")
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
    if let fault { throw fault }
    if batch.isEmpty { batch.removeAll() }
    let before = batch.tail
    let limit = before &+ min(max, batch.capacity &- before)
    if limit <= before { return 0 }
    _ = unsafe pool.stock(limit &- before)
    let end = arrived()
    var bytes = 0
    var packet = unsafe batch.base + before
    odd: while true {
      let wanted = limit &- batch.tail
      batch.tail &+= poll(wanted, arrived: end, sharesPool: false, &bytes) {
        unsafe packet.initialize(to: $0)
        unsafe packet += 1
      }
      if unsafe next == end || batch.tail == limit || pool.pointee.top == 0 { break }
      switch takeOdd(arrived: end) {
      case .packet(let gathered):
        bytes &+= gathered.count
        unsafe packet.initialize(to: gathered)
        unsafe packet += 1
        batch.tail &+= 1
      case .dropped: break
      case .wait: break odd
      }
    }
    finish(count: batch.tail &- before, bytes: bytes)
    if let fault, batch.tail == before { throw fault }
    return batch.tail &- before
  }
}

extension VirtioSplitReceiveQueue {
  /// Gives frames to `sink` up to the first that is not simply whole, or out of order.
  ///
  /// - Parameters:
  ///   - limit: The most frames.
  ///   - end: How far the device has got.
  ///   - sharesPool: Whether `sink` uses the mempool, too.
  ///   - bytes: The frames' bytes are added to it.
  ///   - sink: Takes each frame.
  /// - Returns: The number of frames.
  @inlinable @inline(__always) mutating func poll(
    _ limit: Int, arrived end: Int, sharesPool: Bool, _ bytes: inout Int,
    _ sink: (consuming Packet) -> Void
  ) -> Int {
    // Locals: nothing to load again in the loop.
    let (pool, stack, ring, buffers) = unsafe (pool, pool.pointee.stack, ring, buffers)
    let (format, last, toDevice) = (format, count &- 1, toDevice)
    let start = next
    // All descriptors are the device's in their order, as long as it uses them so.
    if offered != start &+ count || format.isChained { return 0 }
    let stop = start &+ min(limit, end &- start)
    var (i, sum, top) = unsafe (start, 0, pool.pointee.top)
    while i != stop {
      if top == 0 { break }
      // Read once each, checked, and only then used.
      let entry = unsafe ring.usedEntry(i)
      let (found, length) = unsafe (ixy_load32(entry), ixy_load32(entry + 4))
      let id = i & last
      if Int(found) != id { break }
      let buffer = unsafe buffers[id].unsafelyUnwrapped
      let header = unsafe buffer - format.headerSize
      if unsafe !format.isWhole(length, header) { break }
      let size = length &- UInt32(truncatingIfNeeded: format.headerSize)
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[id] = unsafe fresh
      unsafe ring.descriptors[id].low = UInt64(UInt(bitPattern: fresh)) &+ toDevice
      sum &+= Int(size)
      i &+= 1
      if sharesPool { unsafe pool.pointee.top = top }
      sink(unsafe Packet(buffer: buffer, pool: pool, length: size, hash: format.hash(header)))
      if sharesPool { top = unsafe pool.pointee.top }
    }
    unsafe pool.pointee.top = top
    bytes &+= sum
    next = i
    offered &+= i &- start
    return i &- start
  }
}
