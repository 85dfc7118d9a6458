import CIxy

/// A transmit queue with a split ring.
///
/// It owns the packets that it was given until the device has used their descriptors, in whatever order;
/// then their buffers go back to their pools.
@safe public struct VirtioSplitTransmitQueue: ~Copyable {
  @usableFromInline let ring: VirtioSplitRing
  @usableFromInline let format: VirtioFormat
  /// The number of packets that the device can have.
  @usableFromInline let count: Int
  /// The buffer of each descriptor that the device has, and the pool of each buffer.
  @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
  @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
  /// The descriptors that are free, in the order in which they became so: for entry `next`, `next` + 1, ...
  @usableFromInline let free: UnsafeMutablePointer<UInt16>
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next available entry.
  @usableFromInline var next = 0
  /// The next entry that the device will have used.
  @usableFromInline var clean = 0
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
    unsafe free = .allocate(capacity: setup.memory.entries)
    unsafe free.initialize(repeating: 0, count: setup.memory.entries)
    for id in 0..<count {
      unsafe free[id] = UInt16(id)
      // Bit 0: the next descriptor belongs to it.
      if format.isChained {
        unsafe ring.descriptors[id].high =
          UInt64(format.headerSize) | 1 << 32 | UInt64(id + count) << 48
      }
    }
  }

  deinit {
    var loans: [VirtioLoan] = []
    for id in 0..<count {
      if let buffer = unsafe buffers[id] {
        unsafe loans.append(VirtioLoan(buffer: buffer, pool: pools[id]))
      }
    }
    unsafe buffers.deallocate()
    unsafe pools.deallocate()
    unsafe free.deallocate()
    device.close(index, loans)
  }

  /// The number of packets that fit now.
  @usableFromInline var room: Int {
    @inlinable @inline(__always) get { fault == nil ? count &- (next &- clean) : 0 }
  }

  /// Describes one packet as available entry `i`, and notes whose buffer it has; the device is not told yet.
  ///
  /// - Parameters:
  ///   - packet: What to send.
  ///   - i: The entry, for which there must be room.
  ///   - home: The pool that packets usually come from.
  ///   - foreign: Becomes other than 0 when this one does not.
  /// - Returns: The length of the packet.
  @inlinable @inline(__always) func put(
    _ packet: consuming Packet, at i: Int, home: PoolReference, foreign: inout UInt
  ) -> Int {
    let (buffer, pool, length) = unsafe packet.disown()
    foreign |= UInt(bitPattern: pool) ^ UInt(bitPattern: home)
    // Masked, and below `count`: only `cleanUp` writes here, after its check.
    let id = unsafe Int(free[i & ring.mask])
    unsafe buffers[id] = unsafe buffer
    unsafe pools[id] = unsafe pool
    unsafe format.clearHeader(of: buffer)
    let frame = unsafe UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset
    let header = UInt64(format.headerSize)
    if format.isChained {
      unsafe ring.descriptors[id].low = frame &- header
      unsafe ring.descriptors[id &+ count] = Descriptor(frame, UInt64(length))
    } else {
      unsafe ring.descriptors[id] = Descriptor(frame &- header, UInt64(length) &+ header)
    }
    ring.offer(id, at: i)
    return Int(length)
  }

  /// Gives the available entries before `end` to the device.
  @inlinable @inline(__always)
  mutating func commit(upTo end: Int, bytes: Int, home: PoolReference, foreign: UInt) {
    ring.publish(from: next, to: end)
    unsafe counters.count(end &- next)
    unsafe (counters + 1).count(bytes)
    next = end
    unsafe self.home = unsafe home
    if foreign != 0 { isMixed = true }
  }

  /// Gives the buffers whose descriptors the device has used back.
  @inlinable @inline(__always) mutating func cleanUp() {
    let pending = ring.pending(since: clean)
    if pending != 0 { cleanUp(pending) }
  }

  @usableFromInline @inline(never) mutating func cleanUp(_ pending: Int) {
    if fault != nil { return }
    guard pending <= next - clean else {
      fault = misbehaved("says that it used \(pending) of \(next - clean) packets")
      return
    }
    let end = clean + pending
    var i = clean
    if !isMixed, let home = unsafe home {
      let stack = unsafe home.pointee.stack
      var top = unsafe home.pointee.top
      while i != end, let (_, buffer) = unsafe take(i) {
        unsafe stack[top] = unsafe buffer
        top &+= 1
        i &+= 1
      }
      unsafe home.pointee.top = top
    } else {
      while i != end, let (id, buffer) = unsafe take(i) {
        unsafe pools[id].give(buffer)
        i &+= 1
      }
    }
    clean = i
  }

  /// The descriptor of used entry `i`, and its buffer; it is free from now on.
  ///
  /// - Returns: nil, and there is a fault, when the device did not have it.
  @inline(__always) private mutating func take(_ i: Int) -> (id: Int, buffer: Buffer)? {
    let id = unsafe Int(ixy_load32(ring.usedEntry(i)))
    guard id < count, let buffer = unsafe buffers[id] else {
      fault = misbehaved("used descriptor \(id), which it does not have")
      return nil
    }
    unsafe buffers[id] = nil
    unsafe free[(i &+ count) & ring.mask] = UInt16(truncatingIfNeeded: id)
    return unsafe (id, buffer)
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
    let home = unsafe self.home ?? packet.pointee.pool
    let end = next &+ count
    var (i, bytes, foreign) = (next, 0, UInt(0))
    while i != end {
      unsafe bytes &+= put(packet.move(), at: i, home: home, foreign: &foreign)
      unsafe packet += 1
      i &+= 1
    }
    batch.head &+= count
    unsafe commit(upTo: end, bytes: bytes, home: home, foreign: foreign)
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
    let home = unsafe self.home ?? packet.pool
    var foreign: UInt = 0
    let bytes = unsafe put(packet, at: next, home: home, foreign: &foreign)
    unsafe commit(upTo: next &+ 1, bytes: bytes, home: home, foreign: foreign)
    return nil
  }

  /// Gives the buffers of packets that are sent back to their mempools.
  ///
  /// - Returns: The number of packets that the device still has.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when the device breaks the ring's rules.
  public mutating func reclaim() throws(DeviceError) -> Int {
    cleanUp()
    if let fault { throw fault }
    return next &- clean
  }
}
