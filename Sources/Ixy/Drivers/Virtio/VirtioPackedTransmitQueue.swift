import CIxy

/// A transmit queue with a packed ring.
///
/// It owns the packets that it was given until the device has used their descriptors, in whatever order;
/// then their buffers go back to their pools. Entry `i` has identifier `i` modulo the ring's size.
@safe public struct VirtioPackedTransmitQueue: ~Copyable {
  @usableFromInline let ring: VirtioPackedRing
  @usableFromInline let format: VirtioFormat
  /// The buffer of each entry from `clean` to `next`, nil once the device has used it; and its pool.
  @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
  @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next entry to write.
  @usableFromInline var next = 0
  /// The next entry to notify the device of; where it looks by itself, it may be further.
  @usableFromInline var notified = 0
  /// The oldest entry that the device has not used.
  @usableFromInline var clean = 0
  /// The number of entries that the device has used: `clean`, unless it goes out of order.
  @usableFromInline var used = 0
  /// The pool of all packets so far, while there is only one.
  @usableFromInline var home: PoolReference?
  @usableFromInline var isMixed = false
  /// What the device did wrong; nothing is sent any more.
  @usableFromInline var fault: VirtioFault?
  private let index: Int
  private let device: VirtioDevice

  init(_ setup: VirtioQueueSetup) {
    format = setup.format
    ring = VirtioPackedRing(setup.memory, setup.doorbell)
    device = setup.device
    index = setup.index
    unsafe counters = unsafe setup.counters
    unsafe home = nil
    let count = setup.capacity
    unsafe buffers = .allocate(capacity: count)
    unsafe buffers.initialize(repeating: nil, count: count)
    unsafe pools = .allocate(capacity: count)
  }

  deinit {
    var loans: [VirtioLoan] = []
    for i in clean..<next {
      if let buffer = unsafe buffers[i & ring.mask] {
        loans.append(unsafe VirtioLoan(buffer: buffer, pool: pools[i & ring.mask]))
      }
    }
    unsafe buffers.deallocate()
    unsafe pools.deallocate()
    device.close(index, loans)
  }

  /// The number of packets that fit now.
  @usableFromInline var room: Int {
    @inlinable @inline(__always) get { fault == nil ? ring.mask &+ 1 &- (next &- clean) : 0 }
  }

  /// The number of packets that fit before the ring begins again.
  @inlinable @inline(__always) var run: Int { min(room, ring.mask &+ 1 &- (next & ring.mask)) }

  /// A copy of what it takes to write descriptors: in a loop, nothing is loaded again.
  @safe @frozen @usableFromInline struct Writer {
    @usableFromInline let descriptors: UnsafeMutablePointer<Descriptor>
    @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
    @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
    @usableFromInline let home: PoolReference
    @usableFromInline let headerSize: UInt64
    /// The second half of the next descriptor, but for the frame's length.
    @usableFromInline var word: UInt64
    /// The number of packets written.
    @usableFromInline var count = 0
    @usableFromInline var bytes = 0
    /// Other than 0 when a packet is not of the pool `home`.
    @usableFromInline var foreign: UInt = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing VirtioPackedTransmitQueue, _ pool: PoolReference) {
      let first = queue.next & queue.ring.mask
      unsafe (descriptors, buffers) = (queue.ring.descriptors + first, queue.buffers + first)
      unsafe (pools, home) = (queue.pools + first, queue.home ?? pool)
      headerSize = UInt64(truncatingIfNeeded: queue.format.headerSize)
      word = headerSize | UInt64(truncatingIfNeeded: first) << 32 | queue.ring.available(queue.next)
    }

    /// Describes one packet, for which there must be room, and notes whose buffer it has.
    @inlinable @inline(__always) mutating func put(_ packet: consuming Packet) {
      let (buffer, pool, length) = unsafe packet.disown()
      foreign = unsafe pool == home ? foreign : 1
      unsafe buffers[count] = unsafe buffer
      unsafe pools[count] = unsafe pool
      unsafe buffer.clearVirtioHeader()
      unsafe descriptors[count].low = unsafe pool.iova(buffer) &- headerSize
      // From here on the device may have it.
      unsafe ixy_store64(UnsafeMutableRawPointer(descriptors + count) + 8, word &+ UInt64(length))
      word &+= 1 << 32
      bytes &+= Int(length)
      count &+= 1
    }
  }

  /// Notes what was written.
  @inlinable @inline(__always) mutating func note(_ writer: Writer) {
    next &+= writer.count
    unsafe home = unsafe writer.home
    if writer.foreign != 0 { isMixed = true }
    unsafe counters.count(writer.count)
    unsafe (counters + 1).count(writer.bytes)
  }

  /// Notifies the device of all that was written.
  @inlinable @inline(__always) mutating func notify() {
    if next == notified { return }
    ring.notify()
    notified = next
  }

  /// Writes one packet, for which there must be room.
  @inlinable @inline(__always) mutating func write(_ packet: consuming Packet) {
    var writer = unsafe Writer(self, packet.pool)
    writer.put(packet)
    note(writer)
  }

  /// Gives the buffers whose descriptors the device has used back.
  @inlinable @inline(__always) mutating func cleanUp() {
    if used != next, ring.isUsed(used) { cleanUpUsed() }
  }

  @usableFromInline @inline(never) mutating func cleanUpUsed() {
    if fault != nil { return }
    if used == clean, !isMixed, let home = unsafe home {
      while unsafe used != next && cleanUpInOrder(home) {}
    }
    while used != next, fault == nil, ring.isUsed(used) { takeBack() }
  }

  /// The same up to where the ring begins again, as far as identifiers were used in the order in which they were
  /// made available: their buffers go back as one block.
  ///
  /// - Returns: Whether all were used so.
  @inline(__always) private mutating func cleanUpInOrder(_ home: PoolReference) -> Bool {
    let first = used & ring.mask
    let run = min(next &- used, ring.mask &+ 1 &- first)
    var descriptor = unsafe ring.descriptors + first
    let end = unsafe descriptor + run
    var expected = ring.used(used) | UInt64(truncatingIfNeeded: first) << 32
    while unsafe descriptor != end {
      // What is expected was checked when it was put there.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptor) + 8)
      if word & VirtioPackedRing.state != expected { break }
      expected &+= 1 << 32
      unsafe descriptor += 1
    }
    let count = unsafe run &- (end - descriptor)
    unsafe home.give(buffers + first, count: count)
    used &+= count
    clean = used
    return count == run
  }

  /// Takes the buffer of the next used entry back, whichever it is; it is a fault when the device did not have it.
  private mutating func takeBack() {
    let id = Int(ring.word(used) >> 32 & 0xFFFF)
    // The entry that has this identifier, if any has.
    let entry = clean + ((id &- clean) & ring.mask)
    guard id <= ring.mask, entry < next, let buffer = unsafe buffers[id] else {
      fault = .unknown(id)
      return
    }
    unsafe pools[id].give(buffer)
    unsafe buffers[id] = nil
    used += 1
    while clean != next, unsafe buffers[clean & ring.mask] == nil { clean += 1 }
  }

  /// What to throw for a fault.
  @usableFromInline @inline(never) func error(_ fault: VirtioFault) -> DeviceError {
    device.error(fault, in: index)
  }
}

extension VirtioPackedTransmitQueue: TransmitQueue {
  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  ///
  /// - Parameter batch: The packets to send.
  /// - Returns: The number of packets taken.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when the device breaks the ring's rules.
  @discardableResult
  public mutating func transmit(_ batch: inout PacketBatch) throws(DeviceError) -> Int {
    cleanUp()
    if let fault { throw error(fault) }
    let before = batch.head
    while !batch.isEmpty {
      let count = min(batch.count, run)
      if count == 0 { break }
      var packet = unsafe batch.base + batch.head
      var writer = unsafe Writer(self, packet.pointee.pool)
      let end = unsafe packet + count
      while unsafe packet != end {
        unsafe writer.put(packet.move())
        unsafe packet += 1
      }
      batch.head &+= count
      note(writer)
    }
    notify()
    return batch.head &- before
  }

  /// Sends one packet, or hands it back when the ring is full.
  ///
  /// - Parameter packet: What to send.
  /// - Returns: The packet when there is no room.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when the device breaks the ring's rules.
  public mutating func transmit(_ packet: consuming Packet) throws(DeviceError) -> Packet? {
    cleanUp()
    if let fault { throw error(fault) }
    if room == 0 { return packet }
    write(packet)
    notify()
    return nil
  }

  /// Gives the buffers of packets that are sent back to their mempools.
  ///
  /// - Returns: The number of packets that the device still has.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when the device breaks the ring's rules.
  public mutating func reclaim() throws(DeviceError) -> Int {
    cleanUp()
    if let fault { throw error(fault) }
    return next &- used
  }
}
