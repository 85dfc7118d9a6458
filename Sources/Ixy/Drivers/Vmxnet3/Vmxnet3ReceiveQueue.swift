import CIxy

/// A receive ring of a vmxnet3.
///
/// Each descriptor owns one buffer. A received frame leaves with its buffer as a `Packet`, and a fresh
/// buffer takes its place. Each descriptor that the device has used has one completion, in the same order.
@safe struct Vmxnet3ReceiveQueue: ~Copyable {
  private let rings: Vmxnet3Rings
  private let descriptors: UnsafeMutablePointer<Descriptor>
  private let completions: UnsafeMutablePointer<Descriptor>
  /// The buffer of each descriptor, in memory of our own.
  private let buffers: UnsafeMutablePointer<Buffer>
  /// The entries of the ring less one, and their number as a power of two.
  private let mask: Int
  private let shift: Int
  private let pool: PoolReference
  private let counters: UnsafeMutablePointer<UInt64>
  /// The length of the longest frame, without its 14 bytes of header.
  private let longest: UInt32
  /// The use of a descriptor that the device will complete next, counted from the start.
  private var next = 0
  /// The use that would go on with a frame that is thrown away.
  private var unfinished = -1
  /// The device has named a descriptor that was not its turn: nothing that it says can be trusted.
  private var isBroken = false
  private let doorbell: Doorbell
  /// Other than 0 when the device wants the doorbell.
  private let wantsDoorbell: UnsafeRawPointer
  private let id: Int
  private let device: Vmxnet3Device
  private let mempool: Mempool

  /// A queue whose ring is filled; the device may take the buffers at once.
  init(
    _ rings: Vmxnet3Rings, _ device: Vmxnet3Device, _ id: Int, wantsDoorbell: UnsafeRawPointer,
    counters: UnsafeMutablePointer<UInt64>, mempool: Mempool
  ) {
    unsafe self.wantsDoorbell = unsafe wantsDoorbell
    self.rings = rings
    unsafe descriptors = rings.descriptors(0)
    unsafe completions = rings.descriptors(2)
    mask = rings.sizes[0] - 1
    shift = rings.sizes[0].trailingZeroBitCount
    unsafe buffers = .allocate(capacity: mask + 1)
    unsafe pool = unsafe mempool.state
    unsafe self.counters = unsafe counters
    self.mempool = mempool
    longest = UInt32(device.configuration.maximumFrame - 14)
    self.device = device
    self.id = id
    doorbell = Doorbell(device.data, Vmxnet3Register.rxprod(id))
    for i in 0...mask {
      unsafe pool.pointee.top -= 1
      unsafe (buffers + i).initialize(to: pool.pointee.stack[pool.pointee.top])
      unsafe descriptors[i].low = unsafe pool.iova(buffers[i])
    }
    // One stays behind: known drivers never give all of a ring away.
    for i in 0..<mask { arm(i) }
    doorbell.ring(mask)
  }

  deinit {
    if device.releaseReceiveQueue(id) {
      for i in 0...mask { unsafe pool.give(buffers[i]) }
    }
    unsafe buffers.deallocate()
  }

  /// The second word of descriptors for the lap that use number `use` is in.
  @inline(__always) private func word(at use: Int) -> UInt64 {
    let bit = Vmxnet3Generation.bit(of: use, shift: shift)
    return unsafe Vmxnet3ReceiveDescriptor.word(size: pool.pointee.bufferSize)
      | bit << Vmxnet3ReceiveDescriptor.generationShift
  }

  /// Gives the device the buffer of a descriptor, for its use number `use`.
  private func arm(_ use: Int) {
    let i = use & mask
    unsafe descriptors[i].low = unsafe pool.iova(buffers[i])
    unsafe descriptors.publish(i, word(at: use))
  }

  /// The number of descriptors before one of the rings wraps.
  ///
  /// Each that is taken gives the one before it: one always stays behind.
  @inline(__always) private var run: Int {
    mask &+ 1 &- max(next & mask, (next &+ mask) & mask)
  }

  /// Gives whole, good frames to `packets` and fresh buffers to the device.
  ///
  /// The loop has nothing but the packets in it: no ring wraps, so that generations are the same all the time,
  /// and what is not a whole, good frame ends it.
  ///
  /// - Parameters:
  ///   - packets: Where they go.
  ///   - limit: The most of them, for which there are descriptors in the run and buffers in the mempool.
  /// - Returns: Their number.
  @inline(__always) private mutating func poll(
    _ packets: UnsafeMutablePointer<Packet>, _ limit: Int
  ) -> Int {
    // Locals: nothing to load again in the loop.
    let first = next & mask
    let completions = unsafe self.completions + next & (2 &* mask &+ 1)
    let taken = unsafe descriptors + first
    let given = unsafe descriptors + (next &+ mask) & mask
    let (buffers, word) = unsafe (buffers + first, word(at: next &+ mask))
    let (pool, stack, longest) = unsafe (pool, pool.pointee.stack, UInt64(longest))
    let lap = Vmxnet3Generation.bit(of: next, shift: shift &+ 1)
    let whole = Vmxnet3ReceiveCompletion.whole(queue: id, descriptor: first)
    var (i, bytes, top) = unsafe (0, 0, pool.pointee.top)
    while i != limit {
      // SAFETY: `i` is in all rings. Each word is read once, the one with the generation first.
      let high = unsafe ixy_load64(UnsafeRawPointer(completions + i) + 8)
      let payload = Vmxnet3ReceiveCompletion.payload(high, lap: lap)
      if payload > longest { break }
      let low = unsafe ixy_load64(UnsafeRawPointer(completions + i))
      if low & Vmxnet3ReceiveCompletion.wholeMask != whole &+ UInt64(truncatingIfNeeded: i) {
        break
      }
      let length = UInt32(truncatingIfNeeded: payload) &+ 14
      // RSS hash, in the upper half of the first word.
      let hash = UInt32(truncatingIfNeeded: low >> 32)
      unsafe (packets + i).initialize(
        to: Packet(buffer: buffers[i], pool: pool, length: length, hash: hash))
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe taken[i].low = unsafe pool.iova(fresh)
      unsafe given.publish(i, word)
      bytes &+= Int(length)
      i &+= 1
    }
    unsafe pool.pointee.top = top
    if i == 0 { return 0 }
    next &+= i
    unsafe counters.count(i)
    unsafe (counters + 1).count(bytes)
    return i
  }

  /// Gives the buffer of a frame that cannot be used straight back to the device.
  ///
  /// The frame is counted once; its descriptors may be several.
  ///
  /// - Returns: Whether there was one.
  @inline(never) private mutating func discard() -> Bool {
    let lap = Vmxnet3Generation.bit(of: next, shift: shift &+ 1)
    let words = unsafe completions.completion(next & (2 &* mask &+ 1), lap)
    guard let (low, high) = words else { return false }
    let whole = Vmxnet3ReceiveCompletion.whole(queue: id, descriptor: next & mask)
    let wrong = (low ^ whole) & Vmxnet3ReceiveCompletion.wholeMask
    // One that has come since is for the next look.
    if wrong == 0, Vmxnet3ReceiveCompletion.payload(high, lap: lap) <= longest { return false }
    if wrong & Vmxnet3ReceiveCompletion.place != 0 {
      isBroken = true
      return false
    }
    if unfinished != next || low & Vmxnet3ReceiveCompletion.start != 0 {
      unsafe (counters + 2).count(1)
    }
    arm(next &+ mask)
    next &+= 1
    unfinished = low & Vmxnet3ReceiveCompletion.end == 0 ? next : -1
    return true
  }
}

extension Vmxnet3ReceiveQueue: ReceiveQueue {
  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  ///
  /// - Throws: When the device completes a descriptor out of its turn, or the card was stopped because another
  ///   queue was dropped.
  mutating func receive(into batch: inout PacketBatch, max: Int) throws(DeviceError) -> Int {
    if isBroken { throw device.brokenRing("receive", id) }
    if batch.isEmpty { batch.removeAll() }
    let (first, start) = (next, batch.tail)
    var left = min(max, batch.capacity &- start)
    _ = unsafe pool.stock(left)
    while left > 0 {
      let limit = unsafe min(left, run, pool.pointee.top)
      if limit == 0 { break }
      let received = unsafe poll(batch.base + batch.tail, limit)
      batch.tail &+= received
      left &-= received
      if received == limit { continue }
      if !discard() { break }
      // A frame that is no good counts, so that this comes to an end.
      left &-= 1
    }
    if next != first, unsafe ixy_load8(wantsDoorbell) != 0 { doorbell.ring((next &- 1) & mask) }
    if batch.tail == start {
      if isBroken { throw device.brokenRing("receive", id) }
      try device.checkActive(id)
    }
    return batch.tail &- start
  }
}
