import CIxy

/// A transmit queue with a packed ring.
///
/// It owns the packets that it was given until the device has used their descriptors, in whatever order;
/// then their buffers go back to their pools.
@safe public struct VirtioPackedTransmitQueue: ~Copyable {
  @usableFromInline let ring: VirtioPackedRing
  @usableFromInline let format: VirtioFormat
  /// The buffer of each identifier that the device has, and the pool of each buffer.
  @usableFromInline let buffers: UnsafeMutablePointer<Buffer?>
  @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
  /// The identifiers that are free, in the order in which they became so: for entry `next`, `next` + 1, ...
  @usableFromInline let free: UnsafeMutablePointer<UInt16>
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next available entry.
  @usableFromInline var next = 0
  /// The next entry that the device will have used.
  @usableFromInline var clean = 0
  /// The descriptor of entry `next`, which makes it and those behind it available.
  @usableFromInline var held: UInt64 = 0
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
    unsafe free = .allocate(capacity: count)
    for id in 0..<count { unsafe (free + id).initialize(to: UInt16(id)) }
  }

  deinit {
    var loans: [VirtioLoan] = []
    for id in 0...ring.mask {
      if let buffer = unsafe buffers[id] {
        loans.append(unsafe VirtioLoan(buffer: buffer, pool: pools[id]))
      }
    }
    unsafe buffers.deallocate()
    unsafe pools.deallocate()
    unsafe free.deallocate()
    device.close(index, loans)
  }

  /// The number of packets that fit now.
  @usableFromInline var room: Int {
    @inlinable @inline(__always) get { fault == nil ? ring.mask &+ 1 &- (next &- clean) : 0 }
  }

  /// Describes one packet as available entry `i`, and notes whose buffer it has.
  ///
  /// The first since the last `commit` is held back: until it is written, the device does not look at the
  /// others.
  ///
  /// - Parameters:
  ///   - packet: What to send.
  ///   - i: The entry, for which there must be room.
  ///   - home: The pool that packets usually come from.
  ///   - foreign: Becomes other than 0 when this one does not.
  /// - Returns: The length of the packet.
  @inlinable @inline(__always) mutating func put(
    _ packet: consuming Packet, at i: Int, home: PoolReference, foreign: inout UInt
  ) -> Int {
    let (buffer, pool, length) = unsafe packet.disown()
    foreign |= UInt(bitPattern: pool) ^ UInt(bitPattern: home)
    // Masked, and below the ring's size: only `cleanUp` writes here, after its check.
    let id = unsafe Int(free[i & ring.mask])
    unsafe buffers[id] = unsafe buffer
    unsafe pools[id] = unsafe pool
    unsafe format.clearHeader(of: buffer)
    let header = UInt64(format.headerSize)
    let address = unsafe UInt64(UInt(bitPattern: buffer)) &+ pool.pointee.iovaOffset &- header
    unsafe ring.descriptors[i & ring.mask].low = address
    let word = UInt64(length) &+ header | UInt64(id) << 32 | ring.available(i)
    if i == next { held = word } else { ring.release(i, word) }
    return Int(length)
  }

  /// Gives the available entries before `end` to the device.
  @inlinable @inline(__always)
  mutating func commit(upTo end: Int, bytes: Int, home: PoolReference, foreign: UInt) {
    ring.publish(from: next, first: held)
    unsafe counters.count(end &- next)
    unsafe (counters + 1).count(bytes)
    next = end
    unsafe self.home = unsafe home
    if foreign != 0 { isMixed = true }
  }

  /// Gives the buffers whose descriptors the device has used back.
  @inlinable @inline(__always) mutating func cleanUp() {
    if clean != next, ring.isUsed(clean) { cleanUpUsed() }
  }

  @usableFromInline @inline(never) mutating func cleanUpUsed() {
    if fault != nil { return }
    var i = clean
    if !isMixed, let home = unsafe home {
      let stack = unsafe home.pointee.stack
      var top = unsafe home.pointee.top
      while i != next, let (_, buffer) = unsafe take(i) {
        unsafe stack[top] = unsafe buffer
        top &+= 1
        i &+= 1
      }
      unsafe home.pointee.top = top
    } else {
      while i != next, let (id, buffer) = unsafe take(i) {
        unsafe pools[id].give(buffer)
        i &+= 1
      }
    }
    clean = i
  }

  /// The identifier of used entry `i`, and its buffer; it is free from now on.
  ///
  /// - Returns: nil when the entry is not used, or — a fault — with an identifier that the device did not have.
  @inline(__always) private mutating func take(_ i: Int) -> (id: Int, buffer: Buffer)? {
    let word = ring.word(i)
    if word & VirtioPackedRing.both != ring.used(i) { return nil }
    let id = Int(word >> 32 & 0xFFFF)
    guard id <= ring.mask, let buffer = unsafe buffers[id] else {
      fault = .misbehaved(
        device: device.name,
        "transmit queue \(index / 2) used identifier \(id), which it does not have")
      return nil
    }
    unsafe buffers[id] = nil
    unsafe free[i & ring.mask] = UInt16(truncatingIfNeeded: id)
    return unsafe (id, buffer)
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
