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
    var writer = unsafe VirtioSplitTransmitQueue.Writer(transmit, pool)
    let limit = min(max, transmit.room)
    let arrived = arrived()
    var (count, bytes) = (0, 0)
    frames: while count < limit {
      count &+= poll(limit &- count, arrived: arrived, sharesPool: true, &bytes) { packet in
        var packet = packet
        if body(&packet) == .send { writer.put(packet) }
      }
      if unsafe count == limit || next == arrived || pool.pointee.top == 0 { break }
      switch takeOdd(arrived: arrived) {
      case .packet(var packet):
        count &+= 1
        bytes &+= packet.count
        if body(&packet) == .send { writer.put(packet) }
      case .dropped: continue
      case .wait: break frames
      }
    }
    finish(count: count, bytes: bytes)
    transmit.commit(writer)
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
    var writer = unsafe VirtioPackedTransmitQueue.Writer(transmit, pool)
    let limit = min(max, transmit.room)
    if offered != next &+ ring.mask &+ 1 { refill() }
    var (count, bytes) = (0, 0)
    frames: while count < limit {
      let (run, stop) = poll(limit &- count, sharesPool: true, &bytes) { packet in
        var packet = packet
        if body(&packet) == .send { writer.put(packet) }
      }
      count &+= run
      switch stop {
      case .none: break frames
      case .wrap: continue
      case .odd:
        switch takeOdd() {
        case .packet(var packet):
          count &+= 1
          bytes &+= packet.count
          if body(&packet) == .send { writer.put(packet) }
        case .dropped: continue
        case .wait: break frames
        }
      }
    }
    finish(count: count, bytes: bytes)
    transmit.commit(writer)
    if let fault, count == 0 { throw fault }
    return count
  }
}
