import CIxy

/// A receive ring of the 82599 (datasheet revision 3.3, §7.1).
///
/// Each descriptor owns one buffer. A received frame leaves with its buffer as a `Packet`, and a fresh
/// buffer takes its place.
@safe public struct IxgbeReceiveQueue: ~Copyable {
  @usableFromInline let ring: DescriptorRing
  @usableFromInline let pool: PoolReference
  @usableFromInline let doorbell: Doorbell
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next descriptor that the device will have written.
  @usableFromInline var next = 0
  /// In the middle of a frame that is thrown away.
  @usableFromInline var isDiscarding = false
  private let id: Int
  private let device: IxgbeDevice
  private let mempool: Mempool

  /// A queue whose ring is filled; the device is not told yet.
  init(_ ring: consuming DescriptorRing, _ device: IxgbeDevice, _ id: Int, _ mempool: Mempool) {
    self.ring = ring
    unsafe (pool, counters) = (mempool.state, device.take(.receive(id)))
    (self.mempool, self.device, self.id) = (mempool, device, id)
    doorbell = Doorbell(device.bar, IxgbeRingRegisters.receive(id).tail)
    for i in 0...self.ring.mask {
      unsafe pool.pointee.top -= 1
      let buffer = unsafe pool.pointee.stack[pool.pointee.top]
      unsafe (self.ring.buffers + i).initialize(to: buffer)
      unsafe rearm(i, buffer)
    }
  }

  deinit {
    guard device.stop(.receive(id)) else { return ring.leak() }
    for i in 0...ring.mask { unsafe pool.give(ring.buffers[i]) }
  }

  /// Gives the device a buffer to fill; where DD will be, there must be 0.
  func rearm(_ i: Int, _ buffer: Buffer) {
    unsafe ring.descriptors[i] = unsafe Descriptor(pool.iova(buffer), 0)
  }

  /// Receives and sends in one pass, with no batch in memory; `body` decides on each packet.
  ///
  /// - Parameters:
  ///   - transmit: Where packets go; its ring limits how many are received.
  ///   - max: The most packets to receive.
  ///   - body: Looks at a packet, changes it, and says what becomes of it.
  /// - Returns: The number of packets received.
  @inlinable @inline(__always) @discardableResult
  public mutating func forward(
    to transmit: inout IxgbeTransmitQueue, max: Int, _ body: (inout Packet) -> Verdict
  ) -> Int {
    transmit.cleanUp()
    if isDiscarding && !discard() { return 0 }
    var (count, left) = (0, max)
    while left > 0 {
      // Up to where one of the rings wraps.
      let run = min(left, transmit.run, ring.mask &+ 1 &- next)
      if run == 0 { break }
      var writer = unsafe IxgbeTransmitQueue.Writer(transmit, pool)
      let received = poll(run, sharesPool: true) { packet in
        var packet = packet
        if body(&packet) == .send { writer.put(packet) }
      }
      transmit.commit(writer)
      count &+= received
      // A frame that is no good ends a run, and counts, so that this comes to an end.
      left &-= received < run ? received &+ 1 : received
      if received < run && !discard() { break }
    }
    return count
  }

  /// Gives received packets to `sink` and fresh buffers to the device, as far as the mempool has them.
  ///
  /// The loop has nothing but the packets in it: neither the wrap, which `limit` is not beyond, nor frames
  /// that are no good, which end it.
  ///
  /// - Returns: The number of packets.
  @inlinable @inline(__always)
  mutating func poll(_ limit: Int, sharesPool: Bool, _ sink: (consuming Packet) -> Void) -> Int {
    // Locals: nothing to load again in the loop.
    let (descriptors, buffers) = unsafe (ring.descriptors + next, ring.buffers + next)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    let longest = unsafe UInt64(truncatingIfNeeded: pool.pointee.bufferSize &- 14)
    var (i, bytes, top) = unsafe (0, 0, pool.pointee.top)
    // The sink may take the last buffer only where it shares the pool.
    let limit = sharesPool ? limit : min(limit, top)
    while i != limit {
      if sharesPool && top == 0 { break }
      // SAFETY: `i` is in the ring. Status, errors and length are read together, and once.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      let payload = IxgbeReceiveDescriptor.payload(word)
      if payload > longest { break }
      let length = UInt32(truncatingIfNeeded: payload) &+ 14
      let hash = unsafe UInt32(truncatingIfNeeded: descriptors[i].low >> 32)
      let packet = unsafe Packet(buffer: buffers[i], pool: pool, length: length, hash: hash)
      let fresh = unsafe stack[top &- 1]
      unsafe buffers[i] = unsafe fresh
      unsafe descriptors[i] = unsafe Descriptor(pool.iova(fresh), 0)
      top &-= 1
      bytes &+= Int(length)
      i &+= 1
      if sharesPool { unsafe pool.pointee.top = top }
      sink(packet)
      if sharesPool { top = unsafe pool.pointee.top }
    }
    unsafe pool.pointee.top = top
    if i > 0 {
      unsafe counters.count(i)
      unsafe (counters + 1).count(bytes)
      next &+= i
      doorbell.ring(next &- 1)
      next &= ring.mask
    }
    return i
  }

  /// Gives the descriptors of a frame that cannot be used straight back to the device.
  ///
  /// A frame of several descriptors goes up to its end, or as far as the device has got.
  ///
  /// - Returns: Whether there was one, all of which is gone.
  @usableFromInline @inline(never) mutating func discard() -> Bool {
    let first = next
    for _ in 0...ring.mask {
      let word = unsafe ixy_load64(UnsafeRawPointer(ring.descriptors + next) + 8)
      let longest = unsafe UInt64(pool.pointee.bufferSize) - 14
      if word & IxgbeReceiveDescriptor.done == 0 { break }
      if !isDiscarding && IxgbeReceiveDescriptor.payload(word) <= longest { break }
      if !isDiscarding { unsafe (counters + 2).count(1) }
      unsafe rearm(next, ring.buffers[next])
      next = (next + 1) & ring.mask
      isDiscarding = word & IxgbeReceiveDescriptor.endOfPacket == 0
      if !isDiscarding { break }
    }
    if next != first { doorbell.ring((next &- 1) & ring.mask) }
    return next != first && !isDiscarding
  }
}
