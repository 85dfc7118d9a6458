import CIxy

extension IxgbeReceiveQueue: ReceiveQueue {
  /// Receives and sends in one pass, with no batch in memory; `body` decides on each packet.
  ///
  /// - Parameters:
  ///   - transmit: Where packets go; its ring limits how many are received.
  ///   - max: The most packets to receive.
  ///   - body: Looks at a packet, changes it, and says what becomes of it.
  /// - Returns: The number of packets received.
  @inlinable @inline(__always) @discardableResult
  public mutating func forward(
    to transmit: inout IxgbeTransmitQueue, max: Int, _ body: (inout Packet) -> Verdict
  ) -> Int {
    transmit.cleanUp()
    let home = unsafe transmit.home ?? pool
    var (end, sent, foreign) = (transmit.next, 0, UInt(0))
    if isDiscarding { next = discard(from: next) }
    let (descriptors, buffers, mask) = unsafe (ring.descriptors, ring.buffers, ring.mask)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    let longest = unsafe UInt32(truncatingIfNeeded: pool.pointee.bufferSize &- 14)
    let limit = min(max, transmit.room)
    var top = unsafe pool.pointee.top
    var i = next
    var count = 0
    var bytes: UInt64 = 0
    // The body may take buffers from the pool, too: look for one each time.
    while count < limit && top > 0 {
      let word = unsafe ixy_load64(UnsafeRawPointer(descriptors + i) + 8)
      if !IxgbeReceiveDescriptor.isWhole(word, longest: longest) {
        if word & IxgbeReceiveDescriptor.done == 0 { break }
        i = discard(from: i)
        if isDiscarding { break }
        continue
      }
      let length = IxgbeReceiveDescriptor.length(word)
      let hash = unsafe UInt32(truncatingIfNeeded: descriptors[i].low >> 32)
      var packet = unsafe Packet(buffer: buffers[i], pool: pool, length: length, hash: hash)
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe buffers[i] = unsafe fresh
      unsafe rearm(i, fresh)
      // Before the body: it may drop the packet.
      unsafe pool.pointee.top = top
      switch body(&packet) {
      case .send:
        unsafe sent &+= transmit.put(packet, at: end, home: home, foreign: &foreign)
        end = (end &+ 1) & transmit.ring.mask
      case .drop: _ = consume packet
      }
      top = unsafe pool.pointee.top
      bytes &+= UInt64(length)
      count &+= 1
      i = (i &+ 1) & mask
    }
    finish(at: i, count: count, bytes: bytes)
    if end != transmit.next {
      unsafe transmit.commit(upTo: end, bytes: sent, home: home, foreign: foreign)
    }
    return count
  }
}

/// What a fused forward does with a packet.
public enum Verdict {
  /// Sends it.
  case send
  /// Gives its buffer back.
  case drop
}

extension IxgbeTransmitQueue: TransmitQueue {
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

  /// Gives the buffers of packets that are sent back to their mempools, as far as that is known.
  ///
  /// - Returns: The number of packets that the device has not fetched yet.
  public mutating func reclaim() -> Int {
    cleanUp()
    let head = Int(truncatingIfNeeded: device.bar[IxgbeRingRegisters.transmit(id).head])
    return (next &- head) & ring.mask
  }
}
