import CIxy

/// A receive queue with a packed ring.
///
/// Each descriptor has one buffer, with the device's header in the bytes before it. A received frame leaves
/// with its buffer as a `Packet`, and its place in the ring becomes available again with a fresh one. Entry `i`
/// always has identifier `i` modulo the ring's size: where the device goes out of order, those behind the oldest
/// that it still has wait for that one.
@safe public struct VirtioPackedReceiveQueue: ~Copyable {
  @usableFromInline let ring: VirtioPackedRing
  @usableFromInline let format: VirtioFormat
  /// The buffer of each identifier; nil when it is not available.
  @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
  @usableFromInline let pool: PoolReference
  /// IOVA of the header = pointer to the buffer + this.
  @usableFromInline let toDevice: UInt64
  /// What is the same in every descriptor: what is there is announced, and no more; the device writes.
  @usableFromInline let description: UInt64
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next entry that the device will have used.
  @usableFromInline var next = 0
  /// The next entry to make available: a turn after `next`, unless the device goes out of order.
  @usableFromInline var offered = 0
  /// The next entry to give to the device.
  @usableFromInline var published = 0
  /// The second half of the descriptor of entry `published`, which makes it and those behind it available.
  @usableFromInline var held: UInt64 = 0
  /// What the device did wrong; nothing is received any more.
  @usableFromInline var fault: VirtioFault?
  private let index: Int
  private let device: VirtioDevice
  private let mempool: Mempool
  /// Where frames go that fill several buffers.
  private let large: Mempool

  init(_ setup: VirtioQueueSetup, mempool: Mempool, large: Mempool) {
    format = setup.format
    ring = VirtioPackedRing(setup.memory, setup.doorbell)
    device = setup.device
    index = setup.index
    unsafe counters = unsafe setup.counters
    self.mempool = mempool
    self.large = large
    unsafe pool = unsafe mempool.state
    toDevice = unsafe pool.pointee.iovaOffset &- UInt64(format.headerSize)
    description = UInt64(format.headerSize + mempool.bufferSize) | VirtioPackedRing.write
    unsafe buffers = .allocate(capacity: setup.capacity)
    unsafe buffers.initialize(repeating: nil, count: setup.capacity)
    refill()
    finish(count: 0, bytes: 0)
  }

  deinit {
    var loans: [VirtioLoan] = []
    for id in 0...ring.mask {
      if let buffer = unsafe buffers[id] {
        loans.append(unsafe VirtioLoan(buffer: buffer, pool: pool))
      }
    }
    unsafe buffers.deallocate()
    device.close(index, loans)
  }

  /// Makes identifiers available again, as far as they are free and the mempool has buffers.
  ///
  /// The first since `published` is held back: until it is written, the device does not look at the others, and
  /// an identifier that comes twice is noticed.
  @usableFromInline @inline(never) mutating func refill() {
    while offered != next + ring.mask + 1, unsafe pool.pointee.top > 0 {
      let id = offered & ring.mask
      if unsafe buffers[id] != nil { break }
      unsafe pool.pointee.top -= 1
      let buffer = unsafe pool.pointee.stack[pool.pointee.top]
      unsafe buffers[id] = unsafe buffer
      unsafe ring.descriptors[id].low = UInt64(UInt(bitPattern: buffer)) &+ toDevice
      let word = description | UInt64(id) << 32 | ring.available(offered)
      if offered == published { held = word } else { ring.release(offered, word) }
      offered += 1
    }
  }

  /// Whether an identifier is the device's.
  private func isLent(_ id: Int) -> Bool {
    // The last entry that had it.
    let entry = offered - 1 - ((offered - 1 - id) & ring.mask)
    return unsafe id <= ring.mask && entry < published && buffers[id] != nil
  }

  /// Gives the device the buffers that are ready for it, and counts what was received.
  @inlinable @inline(__always) mutating func finish(count packets: Int, bytes: Int) {
    if packets == 0 && offered == published { return }
    ring.silence()
    if offered != published {
      ring.release(published, held)
      ring.notify()
    }
    published = offered
    unsafe counters.count(packets)
    unsafe (counters + 1).count(bytes)
  }

  /// What to throw for a fault.
  @usableFromInline @inline(never) func error(_ fault: VirtioFault) -> DeviceError {
    device.error(fault, in: index)
  }

  // MARK: - Frames that are not simply whole

  /// Takes the next frame, which the device has used, and which does not fill just one buffer as it should, or
  /// comes out of order.
  @usableFromInline @inline(never) mutating func takeOdd() -> VirtioOddFrame {
    let word = ring.word(next)
    let (id, length) = (Int(word >> 32 & 0xFFFF), Int(word & 0xFFFF_FFFF))
    guard isLent(id), let buffer = unsafe buffers[id] else {
      fault = .unknown(id)
      return .wait
    }
    let header = unsafe buffer - format.headerSize
    let isLong = length >= format.headerSize
    let parts = format.isMergeable && isLong ? unsafe Int(format.bufferCount(header)) : 1
    if parts > ring.mask + 1 {
      fault = .tooLong(parts, of: ring.mask + 1)
      return .wait
    }
    // The rest of the frame comes with it, or will come; the device may not have as many buffers yet.
    if parts > published - next { return .wait }
    for i in next..<(next + parts) where !ring.isUsed(i) { return .wait }
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
      let word = ring.word(next)
      let (id, size) = (Int(word >> 32 & 0xFFFF), Int(word & 0xFFFF_FFFF))
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

extension VirtioPackedReceiveQueue: ReceiveQueue {
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
    if offered != next &+ ring.mask &+ 1 { refill() }
    var bytes = 0
    var end = unsafe batch.base + before
    frames: while batch.tail != limit {
      let run = run(limit &- batch.tail)
      if run == 0 { break }
      let (count, isOdd) = poll(run, sharesPool: false, &bytes) { packet in
        unsafe end.initialize(to: packet)
        unsafe end += 1
      }
      batch.tail &+= count
      if count == run { continue }
      if !isOdd { break }
      switch takeOdd() {
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

extension VirtioPackedReceiveQueue {
  /// How many frames can be taken in one go.
  ///
  /// - Parameter wanted: The most frames.
  /// - Returns: As many as are wanted, the device has, can be replaced, and come before the ring begins again.
  @inlinable @inline(__always) func run(_ wanted: Int) -> Int {
    let lent = min(published &- next, ring.mask &+ 1 &- (next & ring.mask))
    return unsafe min(wanted, lent, pool.pointee.top)
  }

  /// Gives frames to `sink` up to the first that is not there, not simply whole, or out of order.
  ///
  /// - Parameters:
  ///   - limit: The most frames: what `run` allows.
  ///   - sharesPool: Whether `sink` uses the mempool, too.
  ///   - bytes: The frames' bytes are added to it.
  ///   - sink: Takes each frame.
  /// - Returns: The number of frames, and whether the next one is there, though not simply whole, or out of
  ///   order. It was looked at once: one that was not there a moment ago may be by now, and whole.
  @inlinable @inline(__always) mutating func poll(
    _ limit: Int, sharesPool: Bool, _ bytes: inout Int, _ sink: (consuming Packet) -> Void
  ) -> (count: Int, isOdd: Bool) {
    // All identifiers are the device's in their order, as long as it uses them so.
    if offered != next &+ ring.mask &+ 1 { return (0, ring.isUsed(next)) }
    // Locals: nothing to load again in the loop.
    let first = next & ring.mask
    let (descriptors, buffers) = unsafe (ring.descriptors + first, buffers + first)
    let (format, toDevice) = (format, toDevice)
    let toHeader = format.toHeader
    // One buffer has no more, whatever length several of them may have.
    let most = unsafe UInt64(truncatingIfNeeded: min(format.longest, pool.pointee.bufferSize) &- 14)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    // The next one when the device has used it for the shortest frame, and what makes it available again.
    let (id, state) = (UInt64(truncatingIfNeeded: first) << 32, ring.used(next))
    var used = state | id | UInt64(truncatingIfNeeded: format.least)
    let available = description | ring.available(offered) | id
    let again = available &- used
    let toHold = published &- offered
    var (i, sum, top, isOdd) = unsafe (0, 0, pool.pointee.top, false)
    repeat {
      // Whose it is, identifier and length are read together, and once. Whatever is wrong wraps to a large number.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      let payload = (word & VirtioPackedRing.outcome) &- used
      let buffer = unsafe buffers[i].unsafelyUnwrapped
      let header = unsafe buffer + toHeader
      if unsafe payload > most || !format.isUsual(header) {
        isOdd = word & VirtioPackedRing.both == state
        break
      }
      let size = UInt32(truncatingIfNeeded: payload) &+ 14
      let packet = unsafe Packet(
        buffer: buffer, pool: pool, length: size, hash: format.hash(header))
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe descriptors[i].low = UInt64(UInt(bitPattern: fresh)) &+ toDevice
      if _fastPath(i != toHold) {
        unsafe ixy_store64(UnsafeMutableRawPointer(descriptors + i) + 8, used &+ again)
      }
      used &+= 1 << 32
      sum &+= Int(size)
      i &+= 1
      if sharesPool { unsafe pool.pointee.top = top }
      sink(packet)
      if sharesPool {
        top = unsafe pool.pointee.top
        if top == 0 { break }
      }
    } while i != limit
    unsafe pool.pointee.top = top
    if toHold == 0 { held = available }
    bytes &+= sum
    next &+= i
    offered &+= i
    return (i, isOdd)
  }
}
