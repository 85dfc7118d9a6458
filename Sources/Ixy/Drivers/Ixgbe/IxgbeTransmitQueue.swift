import CIxy
import Glibc

/// A transmit ring of the 82599 (datasheet revision 3.3, §7.2).
///
/// It owns the packets that it was given until the device has sent them; then their buffers go back to
/// their pools, 32 at a time.
@safe public struct IxgbeTransmitQueue: ~Copyable {
  @usableFromInline let ring: DescriptorRing
  @usableFromInline let doorbell: Doorbell
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next free descriptor.
  @usableFromInline var next = 0
  /// The oldest descriptor whose buffer is not back yet; a multiple of 32.
  @usableFromInline var clean = 0
  /// The pool of all packets so far, while there is only one: reclaiming is then a block copy.
  @usableFromInline var home: PoolReference?
  @usableFromInline var isMixed = false
  let id: Int
  let device: IxgbeDevice

  /// The device reports the last of so many descriptors, and they are reclaimed together.
  @inlinable @inline(__always) static var period: Int { 32 }

  /// An empty queue; the device is not told yet.
  init(
    _ ring: consuming DescriptorRing, _ device: IxgbeDevice, _ id: Int,
    counters: UnsafeMutablePointer<UInt64>
  ) {
    self.ring = ring
    unsafe self.counters = unsafe counters
    unsafe home = nil
    self.device = device
    self.id = id
    doorbell = Doorbell(device.bar, IxgbeRingRegisters.transmit(id).tail)
  }

  deinit {
    guard device.stop(.transmit(id)) else { return ring.leak() }
    var i = clean
    while i != next {
      unsafe ring.pools[i].give(ring.buffers[i])
      i = (i + 1) & ring.mask
    }
  }

  /// The number of packets that fit now.
  ///
  /// One descriptor stays free: head == tail means "empty".
  @usableFromInline var room: Int {
    @inlinable @inline(__always) get { (clean &- next &- 1) & ring.mask }
  }

  /// Writes one descriptor, and notes whose buffer it has; the device is not told yet.
  ///
  /// - Parameters:
  ///   - packet: What to send.
  ///   - i: The descriptor, which must be free.
  ///   - home: The pool that packets usually come from.
  ///   - foreign: Becomes other than 0 when this one does not.
  /// - Returns: The length of the packet.
  @inlinable @inline(__always) func put(
    _ packet: consuming Packet, at i: Int, home: PoolReference, foreign: inout UInt
  ) -> Int {
    let (buffer, pool, length) = unsafe packet.disown()
    foreign |= UInt(bitPattern: pool) ^ UInt(bitPattern: home)
    unsafe ring.buffers[i] = unsafe buffer
    unsafe ring.pools[i] = unsafe pool
    let address = unsafe UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset
    unsafe ring.descriptors[i] = Descriptor(
      address, IxgbeTransmitDescriptor.command(length: length))
    return Int(length)
  }

  /// Gives the descriptors before `end` to the device.
  @inlinable @inline(__always)
  mutating func commit(upTo end: Int, bytes: Int, home: PoolReference, foreign: UInt) {
    let count = (end &- next) & ring.mask
    // The last descriptor of each run of 32 is reported; the device does not see it before the doorbell.
    var last = next | (Self.period - 1)
    while last &- next < count {
      unsafe ring.descriptors[last & ring.mask].high |= IxgbeTransmitDescriptor.reportStatus
      last &+= Self.period
    }
    next = end
    unsafe self.home = unsafe home
    if foreign != 0 { isMixed = true }
    unsafe counters.count(count)
    unsafe (counters + 1).count(bytes)
    doorbell.ring(next)
  }

  /// Gives the buffers of each run of 32 descriptors that the device reports as sent back.
  @inlinable @inline(__always) mutating func cleanUp() {
    while (next &- clean) & ring.mask >= Self.period {
      let last = unsafe ring.descriptors + (clean &+ (Self.period - 1))
      let word = unsafe ixy_load64(UnsafeRawPointer(last) + 8)
      if word & IxgbeTransmitDescriptor.done == 0 { break }
      if !isMixed, let home = unsafe home {
        // `clean` is a multiple of 32, and so is the ring: the run never wraps.
        let top = unsafe home.pointee.top
        unsafe (home.pointee.stack + top).update(from: ring.buffers + clean, count: Self.period)
        unsafe home.pointee.top = top &+ Self.period
      } else {
        for i in clean..<(clean &+ Self.period) { unsafe ring.pools[i].give(ring.buffers[i]) }
      }
      clean = (clean &+ Self.period) & ring.mask
    }
  }
}
