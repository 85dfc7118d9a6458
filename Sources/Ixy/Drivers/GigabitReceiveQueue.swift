import CIxy

/// What the 82574 and the 82576 write into the second half of an extended or advanced receive descriptor.
///
/// It is read once, as one 64-bit load: status, errors and length belong together.
enum GigabitReceiveDescriptor {
  /// DD: the device is done with it.
  static let done: UInt64 = 1 << 0
  /// EOP: the last descriptor of its frame.
  static let endOfPacket: UInt64 = 1 << 1
  /// CE, SE, SEQ, CXE and RXE: the frame is damaged.
  ///
  /// Bits 29 and 30 (TCPE and IPE) say that a checksum in it is wrong, which is the application's business.
  private static let errors: UInt64 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31

  /// The length of a frame without the 14 bytes of its Ethernet header, when the descriptor is done and
  /// holds all of one good frame; else more than any buffer can hold.
  @inline(__always) static func payload(_ word: UInt64) -> UInt64 {
    // The length is in bits 32 to 47. Whatever is wrong below leaves bits that the swap makes the high ones:
    // one comparison tells all.
    let rest =
      word & (0xFFFF << 32 | errors | endOfPacket | done) &- (14 << 32 | endOfPacket | done)
    return rest << 32 | rest >> 32
  }
}

/// A receive ring of a gigabit card: the 82574's and the 82576's are alike, descriptor for descriptor.
///
/// Each descriptor owns one buffer. A received frame leaves with its buffer as a `Packet`, and a fresh
/// buffer takes its place.
@safe struct GigabitReceiveQueue: ~Copyable {
  let ring: DescriptorRing
  let doorbell: Doorbell
  private let pool: PoolReference
  private let counters: UnsafeMutablePointer<UInt64>
  /// The length of the longest frame, without its 14 bytes of header.
  private let longest: UInt64
  /// The next descriptor that the device will have written.
  private var next = 0
  /// In the middle of a frame that is thrown away.
  private var isDiscarding = false
  private let id: Int
  private let device: any GigabitDevice
  private let mempool: Mempool

  /// A queue whose ring is filled; the device is not told yet.
  init(
    _ ring: consuming DescriptorRing, _ device: any GigabitDevice, _ id: Int,
    tail: Register<UInt32>, counters: UnsafeMutablePointer<UInt64>, mempool: Mempool
  ) {
    self.ring = ring
    unsafe pool = unsafe mempool.state
    unsafe self.counters = unsafe counters
    self.mempool = mempool
    longest = UInt64(device.configuration.maximumFrame - 14)
    self.device = device
    self.id = id
    doorbell = Doorbell(device.bar, tail)
    for i in 0...self.ring.mask {
      unsafe pool.pointee.top -= 1
      let buffer = unsafe pool.pointee.stack[pool.pointee.top]
      unsafe (self.ring.buffers + i).initialize(to: buffer)
      unsafe rearm(i, buffer)
    }
  }

  deinit {
    guard device.stopReceiveRing(id) else { return ring.leak() }
    for i in 0...ring.mask { unsafe pool.give(ring.buffers[i]) }
  }

  /// Gives the device a buffer to fill; where DD will be, there must be 0.
  private func rearm(_ i: Int, _ buffer: Buffer) {
    unsafe ring.descriptors[i] = unsafe Descriptor(pool.iova(buffer), 0)
  }

  /// Gives whole, good frames to `packets` and fresh buffers to the device.
  ///
  /// The loop has nothing but the packets in it: neither the wrap, which `limit` is not beyond, nor frames
  /// that are no good, which end it.
  ///
  /// - Parameters:
  ///   - packets: Where they go.
  ///   - limit: The most of them, for which there are descriptors up to the wrap and buffers in the mempool.
  /// - Returns: Their number.
  @inline(__always) private mutating func poll(
    _ packets: UnsafeMutablePointer<Packet>, _ limit: Int
  ) -> Int {
    // Locals: nothing to load again in the loop.
    let (descriptors, buffers) = unsafe (ring.descriptors + next, ring.buffers + next)
    let (pool, stack, longest) = unsafe (pool, pool.pointee.stack, longest)
    var (i, bytes, top) = unsafe (0, 0, pool.pointee.top)
    while i != limit {
      // SAFETY: `i` is in the ring. Status, errors and length are read together, and once.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      let payload = GigabitReceiveDescriptor.payload(word)
      if payload > longest { break }
      let length = UInt32(truncatingIfNeeded: payload) &+ 14
      // RSS hash, in the upper half of the first word.
      let hash = unsafe UInt32(truncatingIfNeeded: descriptors[i].low >> 32)
      unsafe (packets + i).initialize(
        to: Packet(buffer: buffers[i], pool: pool, length: length, hash: hash))
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe descriptors[i] = unsafe Descriptor(pool.iova(fresh), 0)
      bytes &+= Int(length)
      i &+= 1
    }
    unsafe pool.pointee.top = top
    if i == 0 { return 0 }
    unsafe counters.count(i)
    unsafe (counters + 1).count(bytes)
    next = (next &+ i) & ring.mask
    return i
  }

  /// Gives the descriptors of a frame that cannot be used straight back to the device.
  ///
  /// A frame of several descriptors goes up to its end, or as far as the device has got.
  ///
  /// - Returns: Whether there was one, all of which is gone.
  @inline(never) private mutating func discard() -> Bool {
    for _ in 0...ring.mask {
      let word = unsafe ixy_load64(UnsafeRawPointer(ring.descriptors + next) + 8)
      if word & GigabitReceiveDescriptor.done == 0 { return false }
      // One that has become good since is for the next look.
      if !isDiscarding {
        if GigabitReceiveDescriptor.payload(word) <= longest { return false }
        unsafe (counters + 2).count(1)
      }
      unsafe rearm(next, ring.buffers[next])
      next = (next &+ 1) & ring.mask
      isDiscarding = word & GigabitReceiveDescriptor.endOfPacket == 0
      if !isDiscarding { return true }
    }
    return false
  }
}

extension GigabitReceiveQueue: ReceiveQueue {
  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  mutating func receive(into batch: inout PacketBatch, max: Int) -> Int {
    if batch.isEmpty { batch.removeAll() }
    let (first, start) = (next, batch.tail)
    var left = min(max, batch.capacity &- start)
    _ = unsafe pool.stock(left)
    var isGood = !isDiscarding || discard()
    while isGood, left > 0 {
      let limit = unsafe min(left, ring.mask &+ 1 &- next, pool.pointee.top)
      if limit == 0 { break }
      let received = unsafe poll(batch.base + batch.tail, limit)
      batch.tail &+= received
      left &-= received
      if received == limit { continue }
      // A frame that is no good counts, so that this comes to an end.
      isGood = discard()
      left &-= 1
    }
    if next != first { doorbell.ring((next &- 1) & ring.mask) }
    return batch.tail &- start
  }
}
