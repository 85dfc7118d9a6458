import CIxy

/// A receive queue with a split ring.
///
/// Each descriptor has one buffer, with the device's header in the bytes before it. A received frame leaves
/// with its buffer as a `Packet`, and its descriptor becomes available again with a fresh one: all of
/// them are always the device's, in whatever order it uses them.
@safe public struct VirtioSplitReceiveQueue: ~Copyable {
  /// What a descriptor has lent to the device, noted where the device cannot change it.
  @safe @usableFromInline struct Slot {
    @usableFromInline var buffer: Buffer
    /// The used entry with which it was last filled; until `published` has passed it, it is not the device's.
    @usableFromInline var filled: Int

    @inlinable @inline(__always) init(_ buffer: Buffer, filled: Int) {
      unsafe self.buffer = unsafe buffer
      self.filled = filled
    }
  }

  @usableFromInline let ring: VirtioSplitRing
  @usableFromInline let format: VirtioFormat
  @usableFromInline let slots: UnsafeMutablePointer<Slot>
  /// The number of buffers that the device has: one for each descriptor, or for two where they are chained.
  @usableFromInline let count: Int
  @usableFromInline let pool: PoolReference
  /// IOVA of the header = pointer to the buffer + this.
  @usableFromInline let toDevice: UInt64
  @usableFromInline let counters: UnsafeMutablePointer<UInt64>
  /// The next entry that the device will have used.
  @usableFromInline var next = 0
  /// How far `next` was when the device was last given buffers.
  @usableFromInline var published = 0
  /// What the device did wrong; nothing is received any more.
  @usableFromInline var fault: DeviceError?
  private let index: Int
  private let device: VirtioDevice
  private let mempool: Mempool
  /// Where frames go that fill several buffers.
  private let large: Mempool

  init(_ setup: VirtioQueueSetup, mempool: Mempool, large: Mempool) {
    format = setup.format
    ring = VirtioSplitRing(setup.memory, setup.doorbell, hasEvents: setup.format.hasEvents)
    device = setup.device
    index = setup.index
    unsafe counters = unsafe setup.counters
    self.mempool = mempool
    self.large = large
    unsafe pool = unsafe mempool.state
    toDevice = unsafe pool.pointee.iovaOffset &- UInt64(format.headerSize)
    count = setup.capacity
    unsafe slots = .allocate(capacity: count)
    for id in 0..<count {
      unsafe pool.pointee.top -= 1
      let buffer = unsafe pool.pointee.stack[pool.pointee.top]
      describe(id)
      unsafe (slots + id).initialize(to: Slot(buffer, filled: -1))
      unsafe fill(id, buffer, at: id - count)
      unsafe slots[id].filled = -1
    }
    ring.publish(from: 0, to: count)
  }

  deinit {
    var loans: [VirtioLoan] = []
    for id in 0..<count { unsafe loans.append(VirtioLoan(buffer: slots[id].buffer, pool: pool)) }
    unsafe slots.deallocate()
    device.close(index, loans)
  }

  /// Writes what never changes in a descriptor: what is there is announced, and no more.
  private func describe(_ id: Int) {
    // Bit 1: the device writes. Bit 0: the next descriptor belongs to it.
    let (header, frame) = (UInt64(format.headerSize), UInt64(mempool.bufferSize))
    if format.isChained {
      unsafe ring.descriptors[id].high = header | 0b11 << 32 | UInt64(id + count) << 48
      unsafe ring.descriptors[id + count].high = frame | 0b10 << 32
    } else {
      unsafe ring.descriptors[id].high = header + frame | 0b10 << 32
    }
  }

  /// Makes a descriptor available with a buffer, in the place of used entry `i`; it is not published yet.
  @inlinable @inline(__always) func fill(_ id: Int, _ buffer: Buffer, at i: Int) {
    unsafe slots[id] = unsafe Slot(buffer, filled: i)
    let address = UInt64(UInt(bitPattern: buffer)) &+ toDevice
    unsafe ring.descriptors[id].low = address
    if format.isChained {
      unsafe ring.descriptors[id &+ count].low = address &+ UInt64(format.headerSize)
    }
    ring.offer(id, at: i &+ count)
  }

  /// Whether a descriptor is the device's.
  @inlinable @inline(__always) func isLent(_ id: Int) -> Bool {
    unsafe id < count && slots[id].filled < published
  }

  /// How far the device has got; it cannot have used more than it has.
  @usableFromInline mutating func arrived() -> Int {
    let pending = ring.pending(since: next)
    if pending > count {
      fault = misbehaved("says that it used \(pending) of \(count) buffers")
      return next
    }
    return next + pending
  }

  /// Gives the device the buffers that are ready for it, and counts what was received.
  @inlinable @inline(__always) mutating func finish(count packets: Int, bytes: Int) {
    if next == published { return }
    ring.silence()
    ring.publish(from: published &+ count, to: next &+ count)
    published = next
    unsafe counters.count(packets)
    unsafe (counters + 1).count(bytes)
  }

  private func misbehaved(_ how: String) -> DeviceError {
    .misbehaved(device: device.name, "receive queue \(index / 2) \(how)")
  }

  // MARK: - Frames that are not simply whole

  /// Takes the next frame, which does not fill just one buffer as it should.
  @usableFromInline @inline(never) mutating func takeOdd(arrived end: Int) -> VirtioOddFrame {
    let entry = unsafe ring.usedEntry(next)
    let (id, length) = unsafe (Int(ixy_load32(entry)), Int(ixy_load32(entry + 4)))
    guard isLent(id) else {
      fault = misbehaved("used descriptor \(id), which it does not have")
      return .wait
    }
    let header = unsafe slots[id].buffer - format.headerSize
    let parts =
      unsafe format.isMergeable && length >= format.headerSize
      ? Int(format.bufferCount(header)) : 1
    if parts > count {
      fault = misbehaved("has a frame of \(parts) buffers, of \(count)")
      return .wait
    }
    // The rest of the frame comes with it, or will come.
    if parts > end - next { return .wait }
    let isPlain = unsafe length >= format.headerSize && format.isPlain(header)
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
      let entry = unsafe ring.usedEntry(next)
      let (id, size) = unsafe (Int(ixy_load32(entry)), Int(ixy_load32(entry + 4)))
      guard isLent(id) else {
        fault = misbehaved("used descriptor \(id), which it does not have")
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

extension VirtioSplitReceiveQueue: ReceiveQueue {
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
    let end = arrived()
    var bytes = 0
    odd: while true {
      bytes &+= takeWhole(into: &batch, upTo: limit, arrived: end)
      if unsafe next == end || batch.tail == limit || pool.pointee.top == 0 { break }
      switch takeOdd(arrived: end) {
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

  /// Takes frames up to the first that is not simply whole.
  ///
  /// - Returns: Their bytes.
  @inline(__always) private mutating func takeWhole(
    into batch: inout PacketBatch, upTo limit: Int, arrived end: Int
  ) -> Int {
    // Locals: nothing to load again in the loop.
    let (pool, stack, format) = unsafe (pool, pool.pointee.stack, format)
    var top = unsafe pool.pointee.top
    let start = next
    let stop = start &+ min(limit &- batch.tail, end &- start, top)
    var packet = unsafe batch.base + batch.tail
    var (i, bytes) = (start, 0)
    while i != stop {
      // Read once each, checked, and only then used.
      let entry = unsafe ring.usedEntry(i)
      let (id, length) = unsafe (Int(ixy_load32(entry)), ixy_load32(entry + 4))
      if !isLent(id) { break }
      let buffer = unsafe slots[id].buffer
      let header = unsafe buffer - format.headerSize
      if unsafe !format.isWhole(length, header) { break }
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
    return bytes
  }
}
