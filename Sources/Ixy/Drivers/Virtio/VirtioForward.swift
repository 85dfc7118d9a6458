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
    if let fault { throw error(fault) }
    transmit.cleanUp()
    if let fault = transmit.fault { throw transmit.error(fault) }
    _ = unsafe pool.stock(min(max, self.count))
    let arrived = arrived()
    var (count, bytes) = (0, 0)
    frames: while count < max {
      let run = min(run(max &- count, arrived: arrived), transmit.run)
      if run == 0 { break }
      var writer = unsafe VirtioSplitTransmitQueue.Writer(transmit, pool)
      let received = poll(run, sharesPool: true, &bytes) { packet in
        var packet = packet
        if body(&packet) == .send { writer.put(packet) }
      }
      transmit.note(writer)
      count &+= received
      if received == run { continue }
      if unsafe pool.pointee.top == 0 { break }
      switch takeOdd(arrived: arrived) {
      case .packet(var packet):
        count &+= 1
        bytes &+= packet.count
        // Fewer were written than there was room for.
        if body(&packet) == .send { transmit.write(packet) }
      case .dropped: continue
      case .wait: break frames
      }
    }
    finish(count: count, bytes: bytes)
    transmit.publish()
    if let fault, count == 0 { throw error(fault) }
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
    if let fault { throw error(fault) }
    transmit.cleanUp()
    if let fault = transmit.fault { throw transmit.error(fault) }
    _ = unsafe pool.stock(min(max, ring.mask &+ 1))
    if offered != next &+ ring.mask &+ 1 { refill() }
    var (count, bytes) = (0, 0)
    frames: while count < max {
      let run = min(run(max &- count), transmit.run)
      if run == 0 { break }
      var writer = unsafe VirtioPackedTransmitQueue.Writer(transmit, pool)
      let (received, isOdd) = poll(run, sharesPool: true, &bytes) { packet in
        var packet = packet
        if body(&packet) == .send { writer.put(packet) }
      }
      transmit.note(writer)
      count &+= received
      if received == run { continue }
      if !isOdd { break }
      switch takeOdd() {
      case .packet(var packet):
        count &+= 1
        bytes &+= packet.count
        // Fewer were written than there was room for.
        if body(&packet) == .send { transmit.write(packet) }
      case .dropped: continue
      case .wait: break frames
      }
    }
    finish(count: count, bytes: bytes)
    transmit.notify()
    if let fault, count == 0 { throw error(fault) }
    return count
  }
}
