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

  /// Writes packets into the ring; what it needs for that is in registers.
  @safe @usableFromInline struct Writer {
    @usableFromInline let ring: VirtioPackedRing
    @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
    @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
    @usableFromInline let headerSize: UInt64
    /// The pool that packets usually come from; `foreign` is other than 0 when one did not.
    @usableFromInline let home: PoolReference
    @usableFromInline var foreign: UInt = 0
    /// The first entry, which is held back: until it is written, the device does not look at the others.
    @usableFromInline let first: Int
    @usableFromInline var held: UInt64 = 0
    /// The next entry, for which there must be room.
    @usableFromInline var next: Int
    @usableFromInline var bytes = 0

    @inlinable @inline(__always)
    init(_ queue: borrowing VirtioPackedTransmitQueue, _ pool: PoolReference) {
      ring = queue.ring
      unsafe buffers = unsafe queue.buffers
      unsafe pools = unsafe queue.pools
      headerSize = UInt64(truncatingIfNeeded: queue.format.headerSize)
      unsafe home = unsafe queue.home ?? pool
      first = queue.next
      next = queue.next
    }

    /// Describes one packet, and notes whose buffer it has.
    @inlinable @inline(__always) mutating func put(_ packet: consuming Packet) {
      let (buffer, pool, length) = unsafe packet.disown()
      unsafe foreign |= UInt(bitPattern: pool) ^ UInt(bitPattern: home)
      let id = next & ring.mask
      unsafe buffers[id] = unsafe buffer
      unsafe pools[id] = unsafe pool
      unsafe buffer.clearVirtioHeader()
      let frame = unsafe UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset
      unsafe ring.descriptors[id].low = frame &- headerSize
      let word =
        UInt64(length) &+ headerSize | UInt64(truncatingIfNeeded: id) << 32 | ring.available(next)
      if next == first { held = word } else { ring.release(next, word) }
      bytes &+= Int(length)
      next &+= 1
    }
  }

  /// Gives what was written to the device.
  @inlinable @inline(__always) mutating func commit(_ writer: Writer) {
    if writer.next == next { return }
    ring.publish(from: next, first: writer.held)
    unsafe counters.count(writer.next &- next)
    unsafe (counters + 1).count(writer.bytes)
    next = writer.next
    unsafe home = unsafe writer.home
    if writer.foreign != 0 { isMixed = true }
  }

  /// Gives the buffers whose descriptors the device has used back.
  @inlinable @inline(__always) mutating func cleanUp() {
    if used != next, ring.isUsed(used) { cleanUpUsed() }
  }

  @usableFromInline @inline(never) mutating func cleanUpUsed() {
    if fault != nil { return }
    if used == clean, !isMixed, let home = unsafe home { unsafe cleanUpInOrder(home) }
    while used != next, fault == nil, ring.isUsed(used) { takeBack() }
  }

  /// The same as far as identifiers were used in the order in which they were made available.
  @inline(__always) private mutating func cleanUpInOrder(_ home: PoolReference) {
    let (ring, buffers, next) = unsafe (ring, buffers, next)
    let stack = unsafe home.pointee.stack
    var top = unsafe home.pointee.top
    var i = clean
    while i != next {
      let id = i & ring.mask
      // What is expected was checked when it was put there.
      let expected = ring.used(i) | UInt64(truncatingIfNeeded: id) << 32
      if ring.word(i) & VirtioPackedRing.state != expected { break }
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
    let id = Int(ring.word(used) >> 32 & 0xFFFF)
    // The entry that has this identifier, if any has.
    let entry = clean + ((id &- clean) & ring.mask)
    guard id <= ring.mask, entry < next, let buffer = unsafe buffers[id] else {
      fault = .misbehaved(
        device: device.name,
        "transmit queue \(index / 2) used identifier \(id), which it does not have")
      return
    }
    unsafe pools[id].give(buffer)
    unsafe buffers[id] = nil
    used += 1
    while clean != next, unsafe buffers[clean & ring.mask] == nil { clean += 1 }
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
