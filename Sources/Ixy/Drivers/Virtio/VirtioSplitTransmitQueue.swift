import CIxy

/// A transmit queue with a split ring.
///
/// It owns the packets that it was given until the device has used their descriptors, in whatever order;
/// then their buffers go back to their pools. Entry `i` has descriptor `i` modulo their number.
@safe public struct VirtioSplitTransmitQueue: ~Copyable {
  @usableFromInline let ring: VirtioSplitRing
  @usableFromInline let format: VirtioFormat
  /// The number of packets that the device can have.
  @usableFromInline let count: Int
  /// The buffer of each entry from `clean` to `next`, nil once the device has used it; and its pool.
  @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
  @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next entry to write.
  @usableFromInline var next = 0
  /// The next entry to tell the device of.
  @usableFromInline var published = 0
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
    ring = VirtioSplitRing(setup.memory, setup.doorbell, hasEvents: setup.format.hasEvents)
    device = setup.device
    index = setup.index
    unsafe counters = unsafe setup.counters
    count = setup.capacity
    unsafe home = nil
    unsafe buffers = .allocate(capacity: count)
    unsafe buffers.initialize(repeating: nil, count: count)
    unsafe pools = .allocate(capacity: count)
    ring.offerAll(of: count)
    if format.isChained {
      // Bit 0: the next descriptor belongs to it.
      for id in 0..<count {
        unsafe ring.descriptors[id].high =
          UInt64(format.headerSize) | 1 << 32 | UInt64(id + count) << 48
      }
    }
  }

  deinit {
    var loans: [VirtioLoan] = []
    for i in clean..<next {
      if let buffer = unsafe buffers[i & (count - 1)] {
        unsafe loans.append(VirtioLoan(buffer: buffer, pool: pools[i & (count - 1)]))
      }
    }
    unsafe buffers.deallocate()
    unsafe pools.deallocate()
    device.close(index, loans)
  }

  /// The number of packets that fit now.
  @usableFromInline var room: Int {
    @inlinable @inline(__always) get { fault == nil ? count &- (next &- clean) : 0 }
  }

  /// The number of packets that fit before the ring begins again.
  @inlinable @inline(__always) var run: Int { min(room, count &- (next & (count &- 1))) }

  /// A copy of what it takes to write descriptors: in a loop, nothing is loaded again.
  @safe @frozen @usableFromInline struct Writer {
    @usableFromInline let descriptors: UnsafeMutablePointer<Descriptor>
    @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
    @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
    @usableFromInline let home: PoolReference
    @usableFromInline let headerSize: UInt64
    /// From a header's descriptor to its frame's, where each has its own; else 0.
    @usableFromInline let toFrame: Int
    /// The number of packets written.
    @usableFromInline var count = 0
    @usableFromInline var bytes = 0
    /// Other than 0 when a packet is not of the pool `home`.
    @usableFromInline var foreign: UInt = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing VirtioSplitTransmitQueue, _ pool: PoolReference) {
      let first = queue.next & (queue.count &- 1)
      unsafe (descriptors, buffers) = (queue.ring.descriptors + first, queue.buffers + first)
      unsafe (pools, home) = (queue.pools + first, queue.home ?? pool)
      headerSize = UInt64(truncatingIfNeeded: queue.format.headerSize)
      toFrame = queue.format.isChained ? queue.count : 0
    }

    /// Describes one packet, for which there must be room, and notes whose buffer it has.
    @inlinable @inline(__always) mutating func put(_ packet: consuming Packet) {
      let (buffer, pool, length) = unsafe packet.disown()
      foreign |= unsafe UInt(bitPattern: pool) ^ UInt(bitPattern: home)
      unsafe buffers[count] = unsafe buffer
      unsafe pools[count] = unsafe pool
      unsafe buffer.clearVirtioHeader()
      let frame = unsafe pool.iova(buffer)
      if toFrame != 0 {
        unsafe descriptors[count].low = frame &- headerSize
        unsafe descriptors[count &+ toFrame] = Descriptor(frame, UInt64(length))
      } else {
        unsafe descriptors[count] = Descriptor(frame &- headerSize, UInt64(length) &+ headerSize)
      }
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

  /// Gives all that was written to the device.
  @inlinable @inline(__always) mutating func publish() {
    if next == published { return }
    ring.publish(from: published, to: next)
    published = next
  }

  /// Writes one packet, for which there must be room.
  @inlinable @inline(__always) mutating func write(_ packet: consuming Packet) {
    var writer = unsafe Writer(self, packet.pool)
    writer.put(packet)
    note(writer)
  }

  /// Gives the buffers whose descriptors the device has used back.
  @inlinable @inline(__always) mutating func cleanUp() {
    let pending = ring.pending(since: used)
    if pending != 0 { cleanUp(pending) }
  }

  @usableFromInline @inline(never) mutating func cleanUp(_ pending: Int) {
    if fault != nil { return }
    let end = used + pending
    guard end <= next else {
      fault = .tooMany(pending, of: next - used)
      return
    }
    if used == clean, !isMixed, let home = unsafe home {
      while unsafe used != end && cleanUp(inOrder: end, home) {}
    }
    while used != end, fault == nil { takeBack() }
  }

  /// The same up to where the ring begins again, as far as descriptors were used in the order in which they were
  /// made available: their buffers go back as one block.
  ///
  /// - Returns: Whether all were used so.
  @inline(__always)
  private mutating func cleanUp(inOrder end: Int, _ home: PoolReference) -> Bool {
    let first = used & (count &- 1)
    let run = min(end &- used, count &- first)
    let entries = unsafe ring.usedEntry(used)
    var i = 0
    while i != run {
      // What is expected was checked when it was put there.
      if unsafe ixy_load32(entries + 8 &* i) != UInt32(truncatingIfNeeded: first &+ i) { break }
      i &+= 1
    }
    unsafe home.give(buffers + first, count: i)
    used &+= i
    clean = used
    return i == run
  }

  /// Takes the buffer of the next used entry back, whichever it is; it is a fault when the device did not have it.
  private mutating func takeBack() {
    let id = unsafe Int(ixy_load32(ring.usedEntry(used)))
    // The entry that has this descriptor, if any has.
    let entry = clean + ((id &- clean) & (count - 1))
    guard id < count, entry < next, let buffer = unsafe buffers[id] else {
      fault = .unknown(id)
      return
    }
    unsafe pools[id].give(buffer)
    unsafe buffers[id] = nil
    used += 1
    while clean != next, unsafe buffers[clean & (count - 1)] == nil { clean += 1 }
  }

  /// What to throw for a fault.
  @usableFromInline @inline(never) func error(_ fault: VirtioFault) -> DeviceError {
    device.error(fault, in: index)
  }
}

extension VirtioSplitTransmitQueue: TransmitQueue {
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
    publish()
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
    publish()
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
