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
  /// The next available entry.
  @usableFromInline var next = 0
  /// The oldest entry that the device has not used.
  @usableFromInline var clean = 0
  /// The number of entries that the device has used: `clean`, unless it goes out of order.
  @usableFromInline var used = 0
  /// The pool of all packets so far, while there is only one.
  @usableFromInline var home: PoolReference?
  @usableFromInline var isMixed = false
  /// What the device did wrong; nothing is sent any more.
  @usableFromInline var fault: DeviceError?
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

  /// Writes packets into the ring; what it needs for that is in registers.
  @safe @usableFromInline struct Writer {
    @usableFromInline let descriptors: UnsafeMutablePointer<Descriptor>
    @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
    @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
    @usableFromInline let count: Int
    @usableFromInline let isChained: Bool
    @usableFromInline let headerSize: UInt64
    /// The pool that packets usually come from; `foreign` is other than 0 when one did not.
    @usableFromInline let home: PoolReference
    @usableFromInline var foreign: UInt = 0
    /// The next entry, for which there must be room.
    @usableFromInline var next: Int
    @usableFromInline var bytes = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing VirtioSplitTransmitQueue, _ pool: PoolReference) {
      unsafe descriptors = unsafe queue.ring.descriptors
      unsafe buffers = unsafe queue.buffers
      unsafe pools = unsafe queue.pools
      count = queue.count
      isChained = queue.format.isChained
      headerSize = UInt64(truncatingIfNeeded: queue.format.headerSize)
      unsafe home = unsafe queue.home ?? pool
      next = queue.next
    }

    /// Describes one packet, and notes whose buffer it has; the device is not told yet.
    @inlinable @inline(__always) mutating func put(_ packet: consuming Packet) {
      let (buffer, pool, length) = unsafe packet.disown()
      unsafe foreign |= UInt(bitPattern: pool) ^ UInt(bitPattern: home)
      let id = next & (count &- 1)
      unsafe buffers[id] = unsafe buffer
      unsafe pools[id] = unsafe pool
      unsafe buffer.clearVirtioHeader()
      let frame = unsafe UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset
      if isChained {
        unsafe descriptors[id].low = frame &- headerSize
        unsafe descriptors[id &+ count] = Descriptor(frame, UInt64(length))
      } else {
        unsafe descriptors[id] = Descriptor(frame &- headerSize, UInt64(length) &+ headerSize)
      }
      bytes &+= Int(length)
      next &+= 1
    }
  }

  /// Gives what was written to the device.
  @inlinable @inline(__always) mutating func commit(_ writer: Writer) {
    if writer.next == next { return }
    ring.publish(from: next, to: writer.next)
    unsafe counters.count(writer.next &- next)
    unsafe (counters + 1).count(writer.bytes)
    next = writer.next
    unsafe home = unsafe writer.home
    if writer.foreign != 0 { isMixed = true }
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
      fault = misbehaved("says that it used \(pending) of \(next - used) packets")
      return
    }
    if used == clean, !isMixed, let home = unsafe home { unsafe cleanUp(inOrder: end, home) }
    while used != end, fault == nil { takeBack() }
  }

  /// The same as far as descriptors were used in the order in which they were made available.
  @inline(__always) private mutating func cleanUp(inOrder end: Int, _ home: PoolReference) {
    let (ring, buffers, last) = unsafe (ring, buffers, count &- 1)
    let stack = unsafe home.pointee.stack
    var top = unsafe home.pointee.top
    var i = clean
    while i != end {
      let id = i & last
      // What is expected was checked when it was put there.
      if unsafe Int(ixy_load32(ring.usedEntry(i))) != id { break }
      unsafe stack[top] = unsafe buffers[id].unsafelyUnwrapped
      top &+= 1
      i &+= 1
    }
    unsafe home.pointee.top = top
    clean = i
    used = i
  }

  /// Takes the buffer of the next used entry back, whichever it is; it is a fault when the device did not have it.
  private mutating func takeBack() {
    let id = unsafe Int(ixy_load32(ring.usedEntry(used)))
    // The entry that has this descriptor, if any has.
    let entry = clean + ((id &- clean) & (count - 1))
    guard id < count, entry < next, let buffer = unsafe buffers[id] else {
      fault = misbehaved("used descriptor \(id), which it does not have")
      return
    }
    unsafe pools[id].give(buffer)
    unsafe buffers[id] = nil
    used += 1
    while clean != next, unsafe buffers[clean & (count - 1)] == nil { clean += 1 }
  }

  private func misbehaved(_ how: String) -> DeviceError {
    .misbehaved(device: device.name, "transmit queue \(index / 2) \(how)")
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
    if let fault { throw fault }
    let count = min(batch.count, room)
    if count == 0 { return 0 }
    var packet = unsafe batch.base + batch.head
    var writer = unsafe Writer(self, packet.pointee.pool)
    let end = unsafe packet + count
    while unsafe packet != end {
      unsafe writer.put(packet.move())
      unsafe packet += 1
    }
    batch.head &+= count
    commit(writer)
    return count
  }

  /// Sends one packet, or hands it back when the ring is full.
  ///
  /// - Parameter packet: What to send.
  /// - Returns: The packet when there is no room.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when the device breaks the ring's rules.
  public mutating func transmit(_ packet: consuming Packet) throws(DeviceError) -> Packet? {
    cleanUp()
    if let fault { throw fault }
    if room == 0 { return packet }
    var writer = unsafe Writer(self, packet.pool)
    writer.put(packet)
    commit(writer)
    return nil
  }

  /// Gives the buffers of packets that are sent back to their mempools.
  ///
  /// - Returns: The number of packets that the device still has.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when the device breaks the ring's rules.
  public mutating func reclaim() throws(DeviceError) -> Int {
    cleanUp()
    if let fault { throw fault }
    return next &- used
  }
}
