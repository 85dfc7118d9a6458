import Ixy

/// Forwards between two ports until a limit is reached, then lets the transmit rings run empty.
///
/// Two ixgbe cards take the fused path; any other pair goes through batches.
func forward(
  _ ports: [Port], _ pool: Mempool, batch: Int, touch: Bool, _ watch: inout CardWatch,
  _ limits: inout Limits, _ reporter: Reporter
) throws {
  if let a = ports[0].device as? IxgbeDevice, let b = ports[1].device as? IxgbeDevice {
    var fromA = try a.takeReceiveQueue(0, mempool: pool)
    var fromB = try b.takeReceiveQueue(0, mempool: pool)
    var toA = try a.takeTransmitQueue(0)
    var toB = try b.takeTransmitQueue(0)
    try poll(&watch, &limits, reporter) { limits in
      let toTheRight = forward(&fromA, &toB, max: limits.next(batch), touch: touch)
      limits.took(toTheRight)
      let toTheLeft = forward(&fromB, &toA, max: limits.next(batch), touch: touch)
      limits.took(toTheLeft)
      // Behind a full ring frames may wait, for which no interrupt comes any more.
      return toTheRight + toTheLeft + (toA.isFull || toB.isFull ? 1 : 0)
    }
    try drain { toA.reclaim() + toB.reclaim() }
  } else {
    var fromA = try ports[0].device.receiveQueue(0, mempool: pool)
    var fromB = try ports[1].device.receiveQueue(0, mempool: pool)
    var toA = try ports[0].device.transmitQueue(0)
    var toB = try ports[1].device.transmitQueue(0)
    var packets = PacketBatch(capacity: batch)
    try poll(&watch, &limits, reporter) { limits in
      let toTheRight = try fromA.receive(into: &packets, max: limits.next(batch))
      limits.took(toTheRight)
      try send(&packets, by: &toB, of: ports[1], touch: touch)
      let toTheLeft = try fromB.receive(into: &packets, max: limits.next(batch))
      limits.took(toTheLeft)
      try send(&packets, by: &toA, of: ports[0], touch: touch)
      return toTheRight + toTheLeft
    }
    try drain { try toA.reclaim() + toB.reclaim() }
  }
}

/// Both rings in one pass.
@inline(never)
private func forward(
  _ receiver: inout IxgbeReceiveQueue, _ transmitter: inout IxgbeTransmitQueue, max: Int,
  touch: Bool
) -> Int {
  if touch {
    return receiver.forward(to: &transmitter, max: max) { packet in
      packet[1] &+= 1
      return .send
    }
  }
  return receiver.forward(to: &transmitter, max: max) { _ in .send }
}

/// Forwards between two ixgbe ports without a mempool, until a limit is reached.
func forwardInPlace(
  _ ports: [Port], batch: Int, touch: Bool, _ watch: inout CardWatch, _ limits: inout Limits,
  _ reporter: Reporter
) throws {
  guard let a = ports[0].device as? IxgbeDevice, let b = ports[1].device as? IxgbeDevice else {
    throw DeviceError.refused(
      "Forward in place", found: "\(ports[0].device.driverName) and \(ports[1].device.driverName)",
      advice: "Only ixgbe cards can; forward without --in-place.")
  }
  var toTheRight = try a.takeInPlaceForwarder(to: b)
  var toTheLeft = try b.takeInPlaceForwarder(to: a)
  try poll(&watch, &limits, reporter) { limits in
    let right = forward(&toTheRight, max: limits.next(batch), touch: touch)
    limits.took(right)
    let left = forward(&toTheLeft, max: limits.next(batch), touch: touch)
    limits.took(left)
    return right + left + (toTheRight.isFull || toTheLeft.isFull ? 1 : 0)
  }
  try drain { toTheRight.pending() + toTheLeft.pending() }
}

@inline(never)
private func forward(_ forwarder: inout IxgbeInPlaceForwarder, max: Int, touch: Bool) -> Int {
  if touch {
    return forwarder.forward(max: max) { frame in
      frame[1] &+= 1
      return .send
    }
  }
  return forwarder.forward(max: max) { _ in .send }
}

/// Sends a batch; what the ring has no room for is dropped and counted.
private func send(
  _ packets: inout PacketBatch, by queue: inout any TransmitQueue & ~Copyable, of port: Port,
  touch: Bool
) throws {
  if touch { packets.forEach { $0[1] &+= 1 } }
  _ = try queue.transmit(&packets)
  port.transmitDropped += UInt64(packets.count)
  packets.removeAll()
}

/// Calls `step`, which says how much it did, until a limit is reached; reports each second.
func poll(
  _ watch: inout CardWatch, _ limits: inout Limits, _ reporter: Reporter,
  _ step: (inout Limits) throws -> Int
) throws {
  while true {
    // The clock costs as much as a packet or two: look at it now and then.
    var moved = 0
    for _ in 0..<64 {
      let count = try step(&limits)
      moved += count
      if limits.left == 0 { break }
    }
    if limits.isOver(wasBusy: moved > 0) { return }
    if try reporter.tick() { watch.tick() }
    try watch.rest(moved: moved)
  }
}

/// Waits until the cards have taken all that is in their transmit rings, for a second at most.
func drain(_ pending: () throws -> Int) throws {
  let deadline = ContinuousClock.now + .seconds(1)
  while try pending() > 0, ContinuousClock.now < deadline {}
}
