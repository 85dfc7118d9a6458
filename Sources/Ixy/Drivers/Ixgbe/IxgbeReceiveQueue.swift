import CIxy
import Glibc

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
  init(
    _ ring: consuming DescriptorRing, _ device: IxgbeDevice, _ id: Int,
    counters: UnsafeMutablePointer<UInt64>,
    mempool: Mempool
  ) {
    self.ring = ring
    unsafe pool = unsafe mempool.state
    unsafe self.counters = unsafe counters
    self.mempool = mempool
    self.device = device
    self.id = id
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
    if isDiscarding { next = discard(from: next) }
    // Locals: nothing to load again in the loop.
    let (descriptors, buffers, mask) = unsafe (ring.descriptors, ring.buffers, ring.mask)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    let longest = unsafe UInt32(truncatingIfNeeded: pool.pointee.bufferSize &- 14)
    let wanted = min(max, batch.capacity &- batch.tail)
    var top = unsafe pool.pointee.top
    let bottom = top &- min(wanted, top)
    var packet = unsafe batch.base + batch.tail
    var i = next
    var bytes: UInt64 = 0
    while top != bottom {
      // SAFETY: `i` is masked. Status, errors and length are read together, and once.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      if !IxgbeReceiveDescriptor.isWhole(word, longest: longest) {
        if word & IxgbeReceiveDescriptor.done == 0 { break }
        i = discard(from: i)
        if isDiscarding { break }
        continue
      }
      let length = IxgbeReceiveDescriptor.length(word)
      let hash = unsafe UInt32(truncatingIfNeeded: descriptors[i].low >> 32)
      unsafe packet.initialize(
        to: Packet(buffer: buffers[i], pool: pool, length: length, hash: hash))
      unsafe packet += 1
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe rearm(i, fresh)
      bytes &+= UInt64(length)
      i = (i &+ 1) & mask
    }
    let count = unsafe packet - (batch.base + batch.tail)
    unsafe pool.pointee.top = top
    batch.tail &+= count
    finish(at: i, count: count, bytes: bytes)
    return count
  }

  /// Tells the device and the counters that all descriptors before `i` are its again.
  @inlinable @inline(__always)
  mutating func finish(at i: Int, count: Int, bytes: UInt64) {
    if i == next { return }
    next = i
    unsafe counters.count(count)
    unsafe (counters + 1).count(Int(truncatingIfNeeded: bytes))
    doorbell.ring((i &- 1) & ring.mask)
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
    return i
  }
}
