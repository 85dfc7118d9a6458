import CIxy

extension IxgbeReceiveQueue: ReceiveQueue {
  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  @discardableResult
  public mutating func receive(into batch: inout PacketBatch, max: Int = .max) -> Int {
    if batch.isEmpty { batch.removeAll() }
    if isDiscarding { next = discard(from: next) }
    // Locals: nothing to load again in the loop.
    let (descriptors, buffers, mask) = unsafe (ring.descriptors, ring.buffers, ring.mask)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    let longest = unsafe UInt32(truncatingIfNeeded: pool.pointee.bufferSize &- 14)
    let wanted = min(max, batch.capacity &- batch.tail)
    var top = unsafe pool.pointee.top
    let bottom = top &- min(wanted, top)
    var packet = unsafe batch.base + batch.tail
    var (i, bytes, bad) = (next, 0, 0)
    while top != bottom {
      // SAFETY: `i` is masked. Status, errors and length are read together, and once.
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      if !IxgbeReceiveDescriptor.isWhole(word, longest: longest) {
        if word & IxgbeReceiveDescriptor.done == 0 { break }
        i = discard(from: i)
        bad &+= 1
        if isDiscarding || bad > mask { break }
        continue
      }
      let length = IxgbeReceiveDescriptor.length(word)
      let hash = unsafe UInt32(truncatingIfNeeded: descriptors[i].low >> 32)
      unsafe packet.initialize(
        to: Packet(buffer: buffers[i], pool: pool, length: length, hash: hash))
      unsafe packet += 1
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe rearm(i, fresh)
      bytes &+= Int(length)
      i = (i &+ 1) & mask
    }
    let count = unsafe packet - (batch.base + batch.tail)
    unsafe pool.pointee.top = top
    batch.tail &+= count
    finish(at: i, count: count, bytes: bytes)
    return count
  }
}

extension IxgbeTransmitQueue: TransmitQueue {
  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  @discardableResult
  public mutating func transmit(_ batch: inout PacketBatch) -> Int {
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
  public mutating func transmit(_ packet: consuming Packet) -> Packet? {
    cleanUp()
    if room == 0 { return packet }
    let home = unsafe self.home ?? packet.pool
    var foreign: UInt = 0
    let bytes = unsafe put(packet, at: next, home: home, foreign: &foreign)
    unsafe commit(upTo: (next &+ 1) & ring.mask, bytes: bytes, home: home, foreign: foreign)
    return nil
  }

  /// Whether no packet fits: a fused forward receives none either, though some may wait.
  public var isFull: Bool { room == 0 }

  /// Gives the buffers of packets that are sent back to their mempools, as far as that is known.
  ///
  /// - Returns: The number of packets that the device has not fetched yet.
  public mutating func reclaim() -> Int {
    cleanUp()
    let head = Int(truncatingIfNeeded: device.bar[IxgbeRingRegisters.transmit(id).head])
    return (next &- head) & ring.mask
  }
}
