import CIxy

// One packet at a time: nothing is set up for a loop, so that one costs little more than half of a batch of one.

extension IxgbeReceiveQueue {
  /// Receives and sends one packet: what `forward(to:max:_:)` does with a batch of one, for less.
  ///
  /// - Parameters:
  ///   - transmit: Where the packet goes; nothing is received while its ring is full.
  ///   - body: Looks at the packet, changes it, and says what becomes of it.
  /// - Returns: Whether there was one.
  @inlinable @inline(__always) @discardableResult
  public mutating func forwardOne(
    to transmit: inout IxgbeTransmitQueue, _ body: (inout Packet) -> Verdict
  ) -> Bool {
    if !transmit.hasRoom() { return false }
    let top = unsafe pool.stock(1)
    if top == 0 { return false }
    if isDiscarding && !discard() { return false }
    let (i, longest) = unsafe (next, UInt64(truncatingIfNeeded: pool.pointee.bufferSize &- 14))
    // SAFETY: `next` is in the ring. Status, errors and length are read together, and once.
    let word = unsafe ixy_load64(UnsafeRawPointer(ring.descriptors + i) + 8)
    let payload = IxgbeReceiveDescriptor.payload(word)
    if payload > longest {
      _ = discard()
      return false
    }
    let length = UInt32(truncatingIfNeeded: payload) &+ 14
    let hash = unsafe UInt32(truncatingIfNeeded: ring.descriptors[i].low >> 32)
    var packet = unsafe Packet(buffer: ring.buffers[i], pool: pool, length: length, hash: hash)
    let fresh = unsafe pool.pointee.stack[top &- 1]
    unsafe pool.pointee.top = top &- 1
    unsafe ring.buffers[i] = unsafe fresh
    unsafe ring.descriptors[i] = unsafe Descriptor(pool.iova(fresh), 0)
    unsafe counters.count(1)
    unsafe (counters + 1).count(Int(length))
    doorbell.ring(i)
    next = (i &+ 1) & ring.mask
    if body(&packet) == .send { transmit.put(packet) }
    return true
  }
}

extension IxgbeTransmitQueue {
  /// Sends one packet, or hands it back when the ring is full.
  @inlinable @inline(__always)
  public mutating func transmit(_ packet: consuming Packet) -> Packet? {
    if !hasRoom() { return packet }
    put(packet)
    return nil
  }

  /// Whether one more packet fits; reclaims what is sent, where that is worth a look.
  @inlinable @inline(__always) mutating func hasRoom() -> Bool {
    if (next &- clean) & ring.mask < Self.period { return true }
    cleanUp()
    return room != 0
  }

  /// Gives one packet to the device; there must be room.
  @inlinable @inline(__always) mutating func put(_ packet: consuming Packet) {
    let (buffer, pool, length) = unsafe packet.disown()
    // As numbers: comparing optional pointers takes three times the instructions.
    if unsafe UInt(bitPattern: pool) != UInt(bitPattern: home) {
      isMixed = unsafe isMixed || home != nil
      unsafe home = pool
    }
    let i = next
    unsafe ring.buffers[i] = unsafe buffer
    unsafe ring.pools[i] = unsafe pool
    let following = i &+ 1
    // The last descriptor of each run of 32 is reported: behind it bit 5 of the index changes.
    let changed = UInt64(truncatingIfNeeded: (i ^ following) & Self.period)
    let report = changed &* (IxgbeTransmitDescriptor.reportStatus / UInt64(Self.period))
    unsafe ring.descriptors[i] = unsafe Descriptor(
      pool.iova(buffer), IxgbeTransmitDescriptor.command(length: length) &+ report)
    next = following & ring.mask
    unsafe counters.count(1)
    unsafe (counters + 1).count(Int(length))
    doorbell.ring(next)
  }
}
