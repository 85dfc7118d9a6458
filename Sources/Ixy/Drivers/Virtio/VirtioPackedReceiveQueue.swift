import CIxy

/// A receive queue with a packed ring.
///
/// Each descriptor has one buffer, with the device's header in the bytes before it. A received frame leaves
/// with its buffer as a `Packet`, and its place in the ring becomes available again with a fresh one: all
/// of them are always the device's, in whatever order it uses them.
@safe public struct VirtioPackedReceiveQueue: ~Copyable {
  @usableFromInline typealias Slot = VirtioSplitReceiveQueue.Slot

  @usableFromInline let ring: VirtioPackedRing
  @usableFromInline let format: VirtioFormat
  /// The buffer of each identifier.
  @usableFromInline let slots: UnsafeMutablePointer<Slot>
  @usableFromInline let pool: PoolReference
  /// IOVA of the header = pointer to the buffer + this.
  @usableFromInline let toDevice: UInt64
  /// What is the same in every descriptor: what is there is announced, and no more; the device writes.
  @usableFromInline let description: UInt64
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next entry that the device will have used.
  @usableFromInline var next: Int
  /// How far `next` was when the device was last given buffers.
  @usableFromInline var published: Int
  /// The descriptor of entry `published`, which makes it and those behind it available.
  @usableFromInline var held: UInt64 = 0
  /// What the device did wrong; nothing is received any more.
  @usableFromInline var fault: DeviceError?
  private let index: Int
  private let device: VirtioDevice
  private let mempool: Mempool
  /// Where frames go that fill several buffers.
  private let large: Mempool

  init(_ setup: VirtioQueueSetup, mempool: Mempool, large: Mempool) {
    format = setup.format
    ring = VirtioPackedRing(setup.memory, setup.doorbell)
    device = setup.device
    index = setup.index
    unsafe counters = unsafe setup.counters
    self.mempool = mempool
    self.large = large
    unsafe pool = unsafe mempool.state
    toDevice = unsafe pool.pointee.iovaOffset &- UInt64(format.headerSize)
    description = UInt64(format.headerSize + mempool.bufferSize) | VirtioPackedRing.write
    unsafe slots = .allocate(capacity: setup.capacity)
    // As if a turn before the first had just been received.
    (next, published) = (-setup.capacity, -setup.capacity)
    for id in 0..<setup.capacity {
      unsafe pool.pointee.top -= 1
      let buffer = unsafe pool.pointee.stack[pool.pointee.top]
      unsafe (slots + id).initialize(to: Slot(buffer, filled: next))
      unsafe fill(id, buffer, at: next)
      next += 1
    }
    finish(count: 0, bytes: 0)
  }

  deinit {
    var loans: [VirtioLoan] = []
    for id in 0...ring.mask {
      loans.append(unsafe VirtioLoan(buffer: slots[id].buffer, pool: pool))
    }
    unsafe slots.deallocate()
    device.close(index, loans)
  }

  /// Makes an identifier available with a buffer, in the place of used entry `i`.
  ///
  /// The first since `published` is held back: until it is written, the device does not look at the others.
  @inlinable @inline(__always) mutating func fill(_ id: Int, _ buffer: Buffer, at i: Int) {
    unsafe slots[id] = unsafe Slot(buffer, filled: i)
    unsafe ring.descriptors[i & ring.mask].low = UInt64(UInt(bitPattern: buffer)) &+ toDevice
    // The same place in the next turn.
    let word = description | UInt64(id) << 32 | ring.available(i &+ ring.mask &+ 1)
    if i == published { held = word } else { ring.release(i, word) }
  }

  /// Whether an identifier is one that the device has.
  @inlinable @inline(__always) func isLent(_ id: Int) -> Bool {
    unsafe id <= ring.mask && slots[id].filled < published
  }

  /// Gives the device the buffers that are ready for it, and counts what was received.
  @inlinable @inline(__always) mutating func finish(count packets: Int, bytes: Int) {
    if next == published { return }
    ring.silence()
    ring.publish(from: published &+ ring.mask &+ 1, first: held)
    published = next
    unsafe counters.count(packets)
    unsafe (counters + 1).count(bytes)
  }

  private func misbehaved(_ how: String) -> DeviceError {
    .misbehaved(device: device.name, "receive queue \(index / 2) \(how)")
  }

  // MARK: - Frames that are not simply whole

  /// Takes the next frame, which the device has used, and which does not fill just one buffer as it should.
  @usableFromInline @inline(never) mutating func takeOdd() -> VirtioOddFrame {
    let word = ring.word(next)
    let (id, length) = (Int(word >> 32 & 0xFFFF), Int(word & 0xFFFF_FFFF))
    guard isLent(id) else {
      fault = misbehaved("used identifier \(id), which it does not have")
      return .wait
    }
    let header = unsafe slots[id].buffer - format.headerSize
    let isLong = length >= format.headerSize
    let parts = format.isMergeable && isLong ? unsafe Int(format.bufferCount(header)) : 1
    if parts > ring.mask + 1 {
      fault = misbehaved("has a frame of \(parts) buffers, of \(ring.mask + 1)")
      return .wait
    }
    // The rest of the frame comes with it, or will come.
    for i in next..<(next + parts) where !ring.isUsed(i) { return .wait }
    let isPlain = unsafe isLong && format.isPlain(header)
    return gather(max(parts, 1), isPlain: isPlain && parts > 0)
  }

  /// Copies the buffers of a frame into one of the large pool, and gives them back to the device.
  ///
  /// - Parameters:
  ///   - parts: The number of buffers, all used by the device.
  ///   - isPlain: Whether the frame is good so far.
  /// - Returns: The frame, if it is good to its end.
  private mutating func gather(_ parts: Int, isPlain: Bool) -> VirtioOddFrame {
    var frame = VirtioGatheredFrame(isPlain ? large : nil, format, room: mempool.bufferSize)
    for _ in 0..<parts {
      let word = ring.word(next)
      let (id, size) = (Int(word >> 32 & 0xFFFF), Int(word & 0xFFFF_FFFF))
      guard isLent(id) else {
        fault = misbehaved("used identifier \(id), which it does not have")
        return .wait
      }
      let buffer = unsafe slots[id].buffer
      unsafe frame.append(buffer, size)
      unsafe fill(id, buffer, at: next)
      next += 1
    }
    if let packet = frame.finish() { return .packet(packet) }
    unsafe (counters + 2).count(1)
    return .dropped
  }
}

extension VirtioPackedReceiveQueue: ReceiveQueue {
  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  ///
  /// - Parameters:
  ///   - batch: Where they go.
  ///   - max: The most to receive.
  /// - Returns: The number of packets appended.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when the device breaks the ring's rules.
  @discardableResult
  public mutating func receive(into batch: inout PacketBatch, max: Int = .max)
    throws(DeviceError) -> Int
  {
    if let fault { throw fault }
    if batch.isEmpty { batch.removeAll() }
    let before = batch.tail
    let limit = before &+ min(max, batch.capacity &- before)
    if limit <= before { return 0 }
    // Once around the ring at most: what is filled here may be used again at once.
    let last = next &+ ring.mask &+ 1
    var bytes = 0
    odd: while takeWhole(into: &batch, upTo: limit, last: last, &bytes) {
      switch takeOdd() {
      case .packet(let packet):
        bytes &+= packet.count
        batch.append(packet)
      case .dropped: break
      case .wait: break odd
      }
    }
    finish(count: batch.tail &- before, bytes: bytes)
    if let fault, batch.tail == before { throw fault }
    return batch.tail &- before
  }

  /// Takes frames up to the first that is not simply whole, or not there; adds their bytes to `bytes`.
  ///
  /// - Returns: Whether there is one that is not simply whole. Its entry is not looked at again for that: one
  ///   that was not there a moment ago may be by now, and whole.
  @inline(__always) private mutating func takeWhole(
    into batch: inout PacketBatch, upTo limit: Int, last: Int, _ bytes: inout Int
  ) -> Bool {
    // Locals: nothing to load again in the loop.
    let (pool, stack, format) = unsafe (pool, pool.pointee.stack, format)
    var top = unsafe pool.pointee.top
    let start = next
    let stop = start &+ min(limit &- batch.tail, last &- start, top)
    var packet = unsafe batch.base + batch.tail
    var i = start
    var isOdd = false
    while i != stop {
      // Whose it is, identifier and length are read together, and once.
      let word = ring.word(i)
      if word & VirtioPackedRing.both != ring.used(i) { break }
      let (id, length) = (Int(word >> 32 & 0xFFFF), UInt32(truncatingIfNeeded: word))
      isOdd = true
      if !isLent(id) { break }
      let buffer = unsafe slots[id].buffer
      let header = unsafe buffer - format.headerSize
      if unsafe !format.isWhole(length, header) { break }
      isOdd = false
      let size = length &- UInt32(truncatingIfNeeded: format.headerSize)
      unsafe packet.initialize(
        to: Packet(buffer: buffer, pool: pool, length: size, hash: format.hash(header)))
      unsafe packet += 1
      top &-= 1
      unsafe fill(id, stack[top], at: i)
      bytes &+= Int(size)
      i &+= 1
    }
    unsafe pool.pointee.top = top
    batch.tail &+= i &- start
    next = i
    return isOdd
  }
}
