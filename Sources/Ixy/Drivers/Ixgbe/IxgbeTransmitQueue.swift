import CIxy
import Glibc

/// A transmit ring of the 82599 (datasheet revision 3.3, §7.2).
///
/// It owns the packets that it was given until the device has sent them; then their buffers go back to
/// their pools, 32 at a time.
@safe public struct IxgbeTransmitQueue: TransmitQueue, ~Copyable {
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
  private let id: Int
  private let device: IxgbeDevice

  /// The device reports the last of so many descriptors, and they are reclaimed together.
  @inlinable @inline(__always) static var period: Int { 32 }

  /// An empty queue; the device is not told yet.
  init(
    _ ring: consuming DescriptorRing, _ device: IxgbeDevice, _ id: Int, counters: QueueCounters
  ) {
    self.ring = ring
    unsafe self.counters = unsafe counters.cells
    unsafe home = nil
    self.device = device
    self.id = id
    doorbell = Doorbell(device.bar, IxgbeTransmitRegisters(queue: id).tdt.offset)
  }

  deinit {
    guard device.stop(transmitQueue: id) else { return ring.leak() }
    var i = clean
    while i != next {
      unsafe ring.pools[i].give(ring.buffers[i])
      i = (i + 1) & ring.mask
    }
  }

  /// The number of packets that fit now. One descriptor stays free: head == tail means "empty".
  @usableFromInline var room: Int {
    @inlinable @inline(__always) get { (clean &- next &- 1) & ring.mask }
  }

  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  @discardableResult
  public mutating func transmit(_ batch: inout PacketBatch) -> Int {
    cleanUp()
    let count = min(batch.count, room)
    if count == 0 { return 0 }
    var source = unsafe batch.base + batch.head
    let end = unsafe source + count
    var writer = unsafe Writer(self, firstPool: source.pointee.pool)
    while unsafe source != end {
      unsafe writer.put(source.move())
      unsafe source += 1
    }
    batch.head &+= count
    commit(writer)
    return count
  }

  /// Sends one packet, or hands it back when the ring is full.
  public mutating func transmit(_ packet: consuming Packet) -> Packet? {
    cleanUp()
    if room == 0 { return packet }
    var writer = unsafe Writer(self, firstPool: packet.pool)
    writer.put(packet)
    commit(writer)
    return nil
  }

  /// Gives the buffers of packets that are sent back to their mempools, as far as that is known.
  ///
  /// - Returns: The number of packets that the device has not fetched yet.
  public mutating func reclaim() -> Int {
    cleanUp()
    let head = Int(truncatingIfNeeded: device.bar[IxgbeTransmitRegisters(queue: id).tdh])
    return (next &- head) & ring.mask
  }

  /// Descriptors being written; in registers of the processor, and not in the queue.
  @safe @usableFromInline struct Writer {
    @usableFromInline let descriptors: UnsafeMutablePointer<Descriptor>
    @usableFromInline let buffers: UnsafeMutablePointer<Buffer>
    @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
    @usableFromInline let home: PoolReference
    @usableFromInline let mask: Int
    @usableFromInline var next: Int
    /// Not 0 when a packet was from another pool than `home`.
    @usableFromInline var foreign: UInt = 0
    @usableFromInline var bytes = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing IxgbeTransmitQueue, firstPool: PoolReference) {
      unsafe descriptors = queue.ring.descriptors
      unsafe buffers = queue.ring.buffers
      unsafe pools = queue.ring.pools
      unsafe home = queue.home ?? firstPool
      mask = queue.ring.mask
      next = queue.next
    }

    @inlinable @inline(__always) mutating func put(_ packet: consuming Packet) {
      let (buffer, pool, length) = unsafe packet.disown()
      unsafe foreign |= UInt(bitPattern: pool) ^ UInt(bitPattern: home)
      unsafe buffers[next] = unsafe buffer
      unsafe pools[next] = unsafe pool
      unsafe descriptors[next] = unsafe Descriptor(
        UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset,
        IxgbeTransmitDescriptor.command(length: length))
      bytes &+= Int(length)
      next = (next &+ 1) & mask
    }
  }

  /// Publishes what the writer wrote.
  @inlinable @inline(__always) mutating func commit(_ writer: Writer) {
    // The last descriptor of each run of 32 is reported; the device does not see it before the doorbell.
    var last = next | (Self.period - 1)
    let count = (writer.next &- next) & ring.mask
    while last &- next < count {
      unsafe ring.descriptors[last & ring.mask].high |= IxgbeTransmitDescriptor.reportStatus
      last &+= Self.period
    }
    next = writer.next
    unsafe home = writer.home
    if writer.foreign != 0 { isMixed = true }
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

extension IxgbeReceiveQueue {
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
    var writer = unsafe IxgbeTransmitQueue.Writer(transmit, firstPool: pool)
    let received = poll(max: min(max, transmit.room)) { packet in
      var packet = packet
      switch body(&packet) {
      case .send: writer.put(packet)
      case .drop: break
      }
    }
    if writer.next != transmit.next { transmit.commit(writer) }
    return received
  }
}
