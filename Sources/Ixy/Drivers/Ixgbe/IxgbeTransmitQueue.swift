import CIxy

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
  init(_ ring: consuming DescriptorRing, _ device: IxgbeDevice, _ id: Int) {
    self.ring = ring
    unsafe counters = device.take(.transmit(id))
    unsafe home = nil
    (self.device, self.id) = (device, id)
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

  /// The number of packets that fit before the ring wraps.
  @inlinable @inline(__always) var run: Int { min(room, ring.mask &+ 1 &- next) }

  /// A copy of what it takes to write descriptors: in a loop, nothing is loaded again.
  @safe @frozen @usableFromInline struct Writer {
    @usableFromInline let descriptors: UnsafeMutablePointer<Descriptor>
    @usableFromInline let buffers: UnsafeMutablePointer<Buffer>
    @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
    @usableFromInline let home: PoolReference
    /// The next descriptor, up to the number of entries: it does not wrap.
    @usableFromInline var next: Int
    @usableFromInline var bytes = 0
    /// Other than 0 when a packet is not of the pool `home`.
    @usableFromInline var foreign: UInt = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing IxgbeTransmitQueue, _ pool: PoolReference) {
      unsafe (descriptors, buffers) = (queue.ring.descriptors, queue.ring.buffers)
      unsafe (pools, home, next) = (queue.ring.pools, queue.home ?? pool, queue.next)
    }

    /// Writes the next descriptor, which must be free, and notes whose buffer it has.
    @inlinable @inline(__always) mutating func put(_ packet: consuming Packet) {
      let (buffer, pool, length) = unsafe packet.disown()
      foreign |= unsafe UInt(bitPattern: pool) ^ UInt(bitPattern: home)
      unsafe buffers[next] = unsafe buffer
      unsafe pools[next] = unsafe pool
      unsafe descriptors[next] = unsafe Descriptor(
        pool.iova(buffer), IxgbeTransmitDescriptor.command(length: length))
      bytes &+= Int(length)
      next &+= 1
    }
  }

  /// Gives the descriptors that `writer` has written to the device.
  @inlinable @inline(__always) mutating func commit(_ writer: Writer) {
    let count = writer.next &- next
    if count == 0 { return }
    // The last descriptor of each run of 32 is reported; the device does not see it before the doorbell.
    var last = next | (Self.period &- 1)
    while last < writer.next {
      unsafe ring.descriptors[last].high |= IxgbeTransmitDescriptor.reportStatus
      last &+= Self.period
    }
    unsafe home = writer.home
    if writer.foreign != 0 { isMixed = true }
    next = writer.next & ring.mask
    unsafe counters.count(count)
    unsafe (counters + 1).count(writer.bytes)
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
