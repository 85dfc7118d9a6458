import CIxy

// The fused forwards: one for each kind of ring, because two indirect calls a packet would cost more than
// the rest. Cards with different rings forward by way of a batch.

extension VirtioSplitReceiveQueue {
  /// Receives and sends in one pass, with no batch in memory; `body` decides on each packet.
  ///
  /// - Parameters:
  ///   - transmit: Where packets go; its ring limits how many are received.
  ///   - max: The most packets to receive.
  ///   - body: Looks at a packet, changes it, and says what becomes of it.
  /// - Returns: The number of packets received.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when a device breaks its ring's rules.
  @inlinable @inline(__always) @discardableResult
  public mutating func forward(
    to transmit: inout VirtioSplitTransmitQueue, max: Int, _ body: (inout Packet) -> Verdict
  ) throws(DeviceError) -> Int {
    if let fault { throw fault }
    transmit.cleanUp()
    if let fault = transmit.fault { throw fault }
    let (pool, stack, format) = unsafe (pool, pool.pointee.stack, format)
    let home = unsafe transmit.home ?? pool
    var (end, sent, foreign) = (transmit.next, 0, UInt(0))
    let limit = min(max, transmit.room)
    let arrived = arrived()
    var (count, bytes) = (0, 0)
    // The body may take buffers from the pool, too: look for one each time.
    frames: while unsafe count < limit && next != arrived && pool.pointee.top > 0 {
      var packet: Packet
      let entry = unsafe ring.usedEntry(next)
      let (id, length) = unsafe (Int(ixy_load32(entry)), ixy_load32(entry + 4))
      if isLent(id), unsafe format.isWhole(length, slots[id].buffer - format.headerSize) {
        let buffer = unsafe slots[id].buffer
        unsafe packet = Packet(
          buffer: buffer, pool: pool,
          length: length &- UInt32(truncatingIfNeeded: format.headerSize),
          hash: format.hash(buffer - format.headerSize))
        let top = unsafe pool.pointee.top &- 1
        unsafe pool.pointee.top = top
        unsafe fill(id, stack[top], at: next)
        next &+= 1
      } else {
        switch takeOdd(arrived: arrived) {
        case .packet(let gathered): packet = gathered
        case .dropped: continue
        case .wait: break frames
        }
      }
      bytes &+= packet.count
      count &+= 1
      switch body(&packet) {
      case .send:
        unsafe sent &+= transmit.put(packet, at: end, home: home, foreign: &foreign)
        end &+= 1
      case .drop: _ = consume packet
      }
    }
    finish(count: count, bytes: bytes)
    if end != transmit.next {
      unsafe transmit.commit(upTo: end, bytes: sent, home: home, foreign: foreign)
    }
    if let fault, count == 0 { throw fault }
    return count
  }
}

extension VirtioPackedReceiveQueue {
  /// Receives and sends in one pass, with no batch in memory; `body` decides on each packet.
  ///
  /// - Parameters:
  ///   - transmit: Where packets go; its ring limits how many are received.
  ///   - max: The most packets to receive.
  ///   - body: Looks at a packet, changes it, and says what becomes of it.
  /// - Returns: The number of packets received.
  /// - Throws: `DeviceError.misbehaved`, now and ever after, when a device breaks its ring's rules.
  @inlinable @inline(__always) @discardableResult
  public mutating func forward(
    to transmit: inout VirtioPackedTransmitQueue, max: Int, _ body: (inout Packet) -> Verdict
  ) throws(DeviceError) -> Int {
    if let fault { throw fault }
    transmit.cleanUp()
    if let fault = transmit.fault { throw fault }
    let (pool, stack, format) = unsafe (pool, pool.pointee.stack, format)
    let home = unsafe transmit.home ?? pool
    var (end, sent, foreign) = (transmit.next, 0, UInt(0))
    let limit = min(max, transmit.room)
    // Once around the ring at most: what is filled here may be used again at once.
    let last = next &+ ring.mask &+ 1
    var (count, bytes) = (0, 0)
    // The body may take buffers from the pool, too: look for one each time.
    frames: while unsafe count < limit && next != last && pool.pointee.top > 0 {
      var packet: Packet
      let word = ring.word(next)
      if word & VirtioPackedRing.both != ring.used(next) { break }
      let (id, length) = (Int(word >> 32 & 0xFFFF), UInt32(truncatingIfNeeded: word))
      if isLent(id), unsafe format.isWhole(length, slots[id].buffer - format.headerSize) {
        let buffer = unsafe slots[id].buffer
        unsafe packet = Packet(
          buffer: buffer, pool: pool,
          length: length &- UInt32(truncatingIfNeeded: format.headerSize),
          hash: format.hash(buffer - format.headerSize))
        let top = unsafe pool.pointee.top &- 1
        unsafe pool.pointee.top = top
        unsafe fill(id, stack[top], at: next)
        next &+= 1
      } else {
        switch takeOdd() {
        case .packet(let gathered): packet = gathered
        case .dropped: continue
        case .wait: break frames
        }
      }
      bytes &+= packet.count
      count &+= 1
      switch body(&packet) {
      case .send:
        unsafe sent &+= transmit.put(packet, at: end, home: home, foreign: &foreign)
        end &+= 1
      case .drop: _ = consume packet
      }
    }
    finish(count: count, bytes: bytes)
    if end != transmit.next {
      unsafe transmit.commit(upTo: end, bytes: sent, home: home, foreign: foreign)
    }
    if let fault, count == 0 { throw fault }
    return count
  }
}
