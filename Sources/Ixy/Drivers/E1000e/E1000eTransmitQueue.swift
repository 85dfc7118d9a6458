import CIxy

/// A transmit ring of the 82574.
///
/// It owns the packets that it was given until the device has sent them; then their buffers go back to
/// their pools, 32 at a time.
@safe struct E1000eTransmitQueue: ~Copyable {
  let ring: DescriptorRing
  private let doorbell: Doorbell
  private let counters: UnsafeMutablePointer<UInt64>
  /// The next free descriptor.
  private var next = 0
  /// The oldest descriptor whose buffer is not back yet; a multiple of 32.
  private var clean = 0
  /// The pool of all packets so far, while there is only one: reclaiming is then a block copy.
  private var home: PoolReference?
  private var isMixed = false
  private let id: Int
  private let device: E1000eDevice

  /// The device reports the last of so many descriptors, and they are reclaimed together.
  @inline(__always) private static var period: Int { 32 }

  /// An empty queue; the device is not told yet.
  init(
    _ ring: consuming DescriptorRing, _ device: E1000eDevice, _ id: Int,
    counters: UnsafeMutablePointer<UInt64>
  ) {
    self.ring = ring
    unsafe self.counters = unsafe counters
    unsafe home = nil
    self.device = device
    self.id = id
    doorbell = Doorbell(device.bar, E1000eRingRegisters.transmit(id).tail)
  }

  deinit {
    device.stopTransmitRing(id)
    var i = clean
    while i != next {
      unsafe ring.pools[i].give(ring.buffers[i])
      i = (i + 1) & ring.mask
    }
  }

  /// The number of packets that fit now; one descriptor stays free: head == tail means "empty".
  @inline(__always) private var room: Int { (clean &- next &- 1) & ring.mask }

  /// Writes one descriptor, and notes whose buffer it has; the device is not told yet.
  ///
  /// - Parameters:
  ///   - packet: What to send.
  ///   - i: The descriptor, which must be free.
  ///   - home: The pool that packets usually come from.
  ///   - foreign: Becomes other than 0 when this one does not.
  /// - Returns: The length of the packet.
  @inline(__always) private func put(
    _ packet: consuming Packet, at i: Int, home: PoolReference, foreign: inout UInt
  ) -> Int {
    let (buffer, pool, length) = unsafe packet.disown()
    foreign |= UInt(bitPattern: pool) ^ UInt(bitPattern: home)
    unsafe ring.buffers[i] = unsafe buffer
    unsafe ring.pools[i] = unsafe pool
    let address = unsafe UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset
    unsafe ring.descriptors[i] = Descriptor(
      address, E1000eTransmitDescriptor.command(length: length))
    return Int(length)
  }

  /// Gives the descriptors before `end` to the device.
  @inline(__always)
  private mutating func commit(upTo end: Int, bytes: Int, home: PoolReference, foreign: UInt) {
    let count = (end &- next) & ring.mask
    // The last descriptor of each run of 32 is reported; the device does not see it before the doorbell.
    var last = next | (Self.period - 1)
    while last &- next < count {
      unsafe ring.descriptors[last & ring.mask].high |= E1000eTransmitDescriptor.reportStatus
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
  @inline(__always) private mutating func cleanUp() {
    while (next &- clean) & ring.mask >= Self.period {
      let last = unsafe ring.descriptors + (clean &+ (Self.period - 1))
      let word = unsafe ixy_load64(UnsafeRawPointer(last) + 8)
      if word & E1000eTransmitDescriptor.done == 0 { break }
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

extension E1000eTransmitQueue: TransmitQueue {
  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  mutating func transmit(_ batch: inout PacketBatch) -> Int {
    cleanUp()
    let count = min(batch.count, room)
    if count == 0 { return 0 }
    var packet = unsafe batch.base + batch.head
    let end = unsafe packet + count
    let home = unsafe self.home ?? packet.pointee.pool
    var (i, bytes, foreign) = (next, 0, UInt(0))
    while unsafe packet != end {
      unsafe bytes &+= put(packet.move(), at: i, home: home, foreign: &foreign)
      unsafe packet += 1
      i = (i &+ 1) & ring.mask
    }
    batch.head &+= count
    unsafe commit(upTo: i, bytes: bytes, home: home, foreign: foreign)
    return count
  }

  /// Sends one packet, or hands it back when the ring is full.
  mutating func transmit(_ packet: consuming Packet) -> Packet? {
    cleanUp()
    if room == 0 { return packet }
    let home = unsafe self.home ?? packet.pool
    var foreign: UInt = 0
    let bytes = unsafe put(packet, at: next, home: home, foreign: &foreign)
    unsafe commit(upTo: (next &+ 1) & ring.mask, bytes: bytes, home: home, foreign: foreign)
    return nil
  }

  /// Gives the buffers of packets that are sent back to their mempools, as far as that is known.
  ///
  /// - Returns: The number of packets that the device has not fetched yet.
  mutating func reclaim() -> Int {
    cleanUp()
    let head = Int(truncatingIfNeeded: device.bar[E1000eRingRegisters.transmit(id).head])
    return (next &- head) & ring.mask
  }
}
