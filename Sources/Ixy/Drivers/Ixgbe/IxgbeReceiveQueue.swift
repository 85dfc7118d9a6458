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
    let home = unsafe transmit.home ?? pool
    var (end, sent, foreign) = (transmit.next, 0, UInt(0))
    if isDiscarding { next = discard(from: next) }
    let (descriptors, buffers, mask) = unsafe (ring.descriptors, ring.buffers, ring.mask)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    let longest = unsafe UInt32(truncatingIfNeeded: pool.pointee.bufferSize &- 14)
    let limit = min(max, transmit.room)
    var top = unsafe pool.pointee.top
    var (i, count) = (next, 0)
    var (bytes, bad) = (0, 0)
    // The body may take buffers from the pool, too: look for one each time.
    while count < limit && top > 0 {
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      if !IxgbeReceiveDescriptor.isWhole(word, longest: longest) {
        if word & IxgbeReceiveDescriptor.done == 0 { break }
        i = discard(from: i)
        bad &+= 1
        if isDiscarding || bad > mask { break }
        continue
      }
      let length = IxgbeReceiveDescriptor.length(word)
      let hash = unsafe UInt32(truncatingIfNeeded: descriptors[i].low >> 32)
      var packet = unsafe Packet(buffer: buffers[i], pool: pool, length: length, hash: hash)
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe rearm(i, fresh)
      // Before the body: it may drop the packet.
      unsafe pool.pointee.top = top
      switch body(&packet) {
      case .send:
        unsafe sent &+= transmit.put(packet, at: end, home: home, foreign: &foreign)
        end = (end &+ 1) & transmit.ring.mask
      case .drop: _ = consume packet
      }
      top = unsafe pool.pointee.top
      bytes &+= Int(length)
      count &+= 1
      i = (i &+ 1) & mask
    }
    finish(at: i, count: count, bytes: bytes)
    if end != transmit.next {
      unsafe transmit.commit(upTo: end, bytes: sent, home: home, foreign: foreign)
    }
    return count
  }

  /// Tells the device and the counters that all descriptors before `i` are its again.
  @inlinable @inline(__always)
  mutating func finish(at i: Int, count: Int, bytes: Int) {
    if i == next { return }
    next = i
    unsafe counters.count(count)
    unsafe (counters + 1).count(bytes)
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
