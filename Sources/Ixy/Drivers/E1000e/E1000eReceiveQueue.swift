import CIxy

/// A receive ring of the 82574.
///
/// Each descriptor owns one buffer. A received frame leaves with its buffer as a `Packet`, and a fresh
/// buffer takes its place.
@safe struct E1000eReceiveQueue: ~Copyable {
  let ring: DescriptorRing
  private let pool: PoolReference
  let doorbell: Doorbell
  private let counters: UnsafeMutablePointer<UInt64>
  /// The length of the longest frame, without its 14 bytes of header.
  private let longest: UInt32
  /// The next descriptor that the device will have written.
  private var next = 0
  /// In the middle of a frame that is thrown away.
  private var isDiscarding = false
  private let id: Int
  private let device: E1000eDevice
  private let mempool: Mempool

  /// A queue whose ring is filled; the device is not told yet.
  init(
    _ ring: consuming DescriptorRing, _ device: E1000eDevice, _ id: Int,
    counters: UnsafeMutablePointer<UInt64>, mempool: Mempool
  ) {
    self.ring = ring
    unsafe pool = unsafe mempool.state
    unsafe self.counters = unsafe counters
    self.mempool = mempool
    longest = UInt32(device.configuration.maximumFrame - 14)
    self.device = device
    self.id = id
    doorbell = Doorbell(device.bar, E1000eRingRegisters.receive(id).tail)
    for i in 0...self.ring.mask {
      unsafe pool.pointee.top -= 1
      let buffer = unsafe pool.pointee.stack[pool.pointee.top]
      unsafe (self.ring.buffers + i).initialize(to: buffer)
      unsafe rearm(i, buffer)
    }
  }

  deinit {
    device.stopReceiveRing(id)
    for i in 0...ring.mask { unsafe pool.give(ring.buffers[i]) }
  }

  /// Gives the device a buffer to fill; where DD will be, there must be 0.
  @inline(__always) private func rearm(_ i: Int, _ buffer: Buffer) {
    unsafe ring.descriptors[i] = unsafe Descriptor(
      UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset, 0)
  }

  /// Gives the descriptors of a frame that cannot be used straight back to the device.
  ///
  /// A frame of several descriptors goes up to its end, or as far as the device has got.
  ///
  /// - Returns: The descriptor after the last.
  @inline(never) private mutating func discard(from first: Int) -> Int {
    if !isDiscarding { unsafe (counters + 2).count(1) }
    isDiscarding = true
    var i = first
    for _ in 0...ring.mask {
      let word = unsafe ixy_load64(UnsafeRawPointer(ring.descriptors + i) + 8)
      if word & E1000eReceiveDescriptor.done == 0 { break }
      unsafe rearm(i, ring.buffers[i])
      i = (i + 1) & ring.mask
      isDiscarding = word & E1000eReceiveDescriptor.endOfPacket == 0
      if !isDiscarding { break }
    }
    return i
  }
}

extension E1000eReceiveQueue: ReceiveQueue {
  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  mutating func receive(into batch: inout PacketBatch, max: Int) -> Int {
    if batch.isEmpty { batch.removeAll() }
    var i = isDiscarding ? discard(from: next) : next
    // Locals: nothing to load again in the loop.
    let (descriptors, buffers, mask) = unsafe (ring.descriptors, ring.buffers, ring.mask)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    let wanted = min(max, batch.capacity &- batch.tail)
    var top = unsafe pool.stock(wanted)
    let bottom = top &- min(wanted, top)
    var packet = unsafe batch.base + batch.tail
    // The device may spoil descriptors as fast as they are given back: one round is enough.
    var (bytes, bad) = (0, 0)
    while top != bottom {
      // SAFETY: `i` is masked. Status, errors and length are read together, and once.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      if !E1000eReceiveDescriptor.isWhole(word, longest: longest) {
        if word & E1000eReceiveDescriptor.done == 0 { break }
        i = discard(from: i)
        bad &+= 1
        if isDiscarding || bad > mask { break }
        continue
      }
      let length = E1000eReceiveDescriptor.length(word)
      // RSS hash, in the upper half of the first word.
      let hash = unsafe UInt32(truncatingIfNeeded: descriptors[i].low >> 32)
      unsafe packet.initialize(
        to: Packet(buffer: buffers[i], pool: pool, length: length, hash: hash))
      unsafe packet += 1
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe rearm(i, fresh)
      bytes &+= Int(length)
      i = (i &+ 1) & mask
    }
    let count = unsafe packet - (batch.base + batch.tail)
    unsafe pool.pointee.top = top
    batch.tail &+= count
    if i == next { return count }
    next = i
    unsafe counters.count(count)
    unsafe (counters + 1).count(bytes)
    doorbell.ring((i &- 1) & mask)
    return count
  }
}
