import CIxy

extension IxgbeReceiveQueue: ReceiveQueue {
  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  @discardableResult
  public mutating func receive(into batch: inout PacketBatch, max: Int = .max) -> Int {
    if batch.isEmpty { (batch.head, batch.tail) = (0, 0) }
    if isDiscarding && !discard() { return 0 }
    let wanted = min(max, batch.capacity &- batch.tail)
    if wanted <= 0 { return 0 }
    _ = unsafe pool.stock(wanted)
    var end = unsafe batch.base + batch.tail
    let count = poll(min(wanted, ring.mask &+ 1 &- next), sharesPool: false) { packet in
      unsafe end.initialize(to: packet)
      unsafe end += 1
    }
    batch.tail &+= count
    if count == wanted { return count }
    // The ring has wrapped, or a frame was no good: it counts, so that this comes to an end.
    if count > 0 && next == 0 { return count &+ receive(into: &batch, max: wanted &- count) }
    if discard() { return count &+ receive(into: &batch, max: wanted &- count &- 1) }
    return count
  }
}

extension IxgbeTransmitQueue: TransmitQueue {
  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  @discardableResult
  public mutating func transmit(_ batch: inout PacketBatch) -> Int {
    cleanUp()
    // Up to where the ring wraps.
    let count = min(batch.count, run)
    if count == 0 { return 0 }
    var packet = unsafe batch.base + batch.head
    var writer = unsafe Writer(self, packet.pointee.pool)
    let end = unsafe packet + count
    while unsafe packet != end {
      unsafe writer.put(packet.move())
      unsafe packet += 1
    }
    batch.head &+= count
    commit(writer)
    return batch.isEmpty || next != 0 ? count : count &+ transmit(&batch)
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
