import CIxy
import Glibc

/// A receive ring of the 82599 (datasheet revision 3.3, §7.1).
///
/// Each descriptor owns one buffer. A received frame leaves with its buffer as a `Packet`, and a fresh
/// buffer takes its place.
@safe public struct IxgbeReceiveQueue: ReceiveQueue, ~Copyable {
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
  init(
    _ ring: consuming DescriptorRing, _ device: IxgbeDevice, _ id: Int, counters: QueueCounters,
    mempool: Mempool
  ) {
    self.ring = ring
    unsafe pool = unsafe mempool.state
    unsafe self.counters = unsafe counters.cells
    self.mempool = mempool
    self.device = device
    self.id = id
    doorbell = Doorbell(device.bar, IxgbeReceiveRegisters(queue: id).rdt.offset)
    for i in 0...self.ring.mask {
      unsafe pool.pointee.top -= 1
      let buffer = unsafe pool.pointee.stack[pool.pointee.top]
      unsafe (self.ring.buffers + i).initialize(to: buffer)
      unsafe rearm(i, buffer)
    }
  }

  deinit {
    guard device.stop(receiveQueue: id) else { return ring.leak() }
    for i in 0...ring.mask { unsafe pool.give(ring.buffers[i]) }
  }

  /// Gives the device a buffer to fill. The second half must be 0, where DD will be.
  @inlinable @inline(__always) func rearm(_ i: Int, _ buffer: Buffer) {
    unsafe ring.descriptors[i] = unsafe Descriptor(
      UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset, 0)
  }

  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  @discardableResult
  public mutating func receive(into batch: inout PacketBatch, max: Int = .max) -> Int {
    if batch.isEmpty { batch.removeAll() }
    var out = unsafe batch.base + batch.tail
    let count = poll(max: min(max, batch.capacity &- batch.tail)) { packet in
      unsafe out.initialize(to: packet)
      unsafe out += 1
    }
    batch.tail &+= count
    return count
  }

  /// Takes up to `limit` frames out of the ring, and hands each to `sink`.
  @inlinable @inline(__always)
  mutating func poll(max limit: Int, _ sink: (consuming Packet) -> Void) -> Int {
    if isDiscarding { next = discard(from: next) }
    // Locals: nothing to load again in the loop.
    let descriptors = unsafe ring.descriptors
    let buffers = unsafe ring.buffers
    let mask = ring.mask
    let pool = unsafe pool
    let stack = unsafe pool.pointee.stack
    let longest = unsafe UInt32(truncatingIfNeeded: pool.pointee.bufferSize &- 14)
    var top = unsafe pool.pointee.top
    var i = next
    var left = limit
    var received = 0
    var bytes = 0
    // The sink may take buffers from the pool, too: look for one each time.
    while left > 0 && top > 0 {
      // SAFETY: `i` is masked, and the buffers' sizes bound what the length may say.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      if word & IxgbeReceiveDescriptor.done == 0 { break }
      left &-= 1
      let length = IxgbeReceiveDescriptor.length(word)
      let flags = IxgbeReceiveDescriptor.endOfPacket | IxgbeReceiveDescriptor.error
      // A frame has at least the 14 bytes of an Ethernet header, and at most what its buffer holds.
      if word & flags != IxgbeReceiveDescriptor.endOfPacket || length &- 14 > longest {
        i = discard(from: i)
        if isDiscarding { break }
        continue
      }
      let hash = unsafe UInt32(truncatingIfNeeded: descriptors[i].low >> 32)
      top &-= 1
      let full = unsafe buffers[i]
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe rearm(i, fresh)
      // Before the sink: it may drop the packet.
      unsafe pool.pointee.top = top
      unsafe sink(Packet(buffer: full, pool: pool, length: length, hash: hash))
      top = unsafe pool.pointee.top
      bytes &+= Int(length)
      received &+= 1
      i = (i &+ 1) & mask
    }
    if left < limit {
      next = i
      unsafe counters.count(received)
      unsafe (counters + 1).count(bytes)
      doorbell.ring((i &- 1) & mask)
    }
    return received
  }

  /// Gives the descriptors of a frame that cannot be used straight back to the device.
  ///
  /// A frame of several descriptors goes up to its end, or as far as the device has got.
  ///
  /// - Returns: The descriptor after the last.
  @usableFromInline @inline(never) mutating func discard(from first: Int) -> Int {
    if !isDiscarding { unsafe (counters + 2).count(1) }
    isDiscarding = true
    var i = first
    for _ in 0...ring.mask {
      let word = unsafe ixy_load64(UnsafeRawPointer(ring.descriptors + i) + 8)
      if word & IxgbeReceiveDescriptor.done == 0 { break }
      unsafe rearm(i, ring.buffers[i])
      i = (i + 1) & ring.mask
      isDiscarding = word & IxgbeReceiveDescriptor.endOfPacket == 0
      if !isDiscarding { break }
    }
    doorbell.ring((i &- 1) & ring.mask)
    return i
  }
}
