import Ixy

/// How many frames may still be received.
protocol Budget {
  /// The most frames to receive next, up to `batch`.
  mutating func next(_ batch: Int) -> Int
  /// So many were received of what `next` allowed.
  mutating func took(_ count: Int)
}

/// What one thread forwards: both ways between two ports, by one queue pair of each.
protocol Lane: ~Copyable, SendableMetatype {
  /// Looks at the queues once, and says how much was to do.
  mutating func step(_ budget: inout some Budget) throws -> Int
  /// The packets that the cards have not fetched yet.
  mutating func pending() throws -> Int
}

/// Two ixgbe cards: receive and send in one pass.
struct FusedLane: Lane, ~Copyable {
  private var fromA: IxgbeReceiveQueue
  private var fromB: IxgbeReceiveQueue
  private var toA: IxgbeTransmitQueue
  private var toB: IxgbeTransmitQueue
  private let batch: Int
  private let touch: Bool

  /// Takes queues `id` of both cards.
  init(_ a: IxgbeDevice, _ b: IxgbeDevice, _ id: Int, _ pool: Mempool, _ load: Load) throws {
    (batch, touch) = (load.batch, load.touch)
    let fromA = try a.takeReceiveQueue(id, mempool: pool)
    let fromB = try b.takeReceiveQueue(id, mempool: pool)
    let toA = try a.takeTransmitQueue(id)
    let toB = try b.takeTransmitQueue(id)
    self.fromA = fromA
    self.fromB = fromB
    self.toA = toA
    self.toB = toB
  }

  mutating func step(_ budget: inout some Budget) -> Int {
    let toTheRight = forward(&fromA, &toB, max: budget.next(batch), touch: touch)
    budget.took(toTheRight)
    let toTheLeft = forward(&fromB, &toA, max: budget.next(batch), touch: touch)
    budget.took(toTheLeft)
    // Behind a full ring frames may wait, for which no interrupt comes any more.
    return toTheRight + toTheLeft + (toA.isFull || toB.isFull ? 1 : 0)
  }

  mutating func pending() -> Int { toA.reclaim() + toB.reclaim() }
}

/// Both rings in one pass.
@inline(never)
private func forward(
  _ receiver: inout IxgbeReceiveQueue, _ transmitter: inout IxgbeTransmitQueue, max: Int,
  touch: Bool
) -> Int {
  if max == 1 {
    return receiver.forwardOne(to: &transmitter) { packet in
      if touch { packet[1] &+= 1 }
      return .send
    } ? 1 : 0
  }
  if touch {
    return receiver.forward(to: &transmitter, max: max) { packet in
      packet[1] &+= 1
      return .send
    }
  }
  return receiver.forward(to: &transmitter, max: max) { _ in .send }
}

/// Two ixgbe cards whose frames stay in their descriptors.
struct InPlaceLane: Lane, ~Copyable {
  private var toTheRight: IxgbeInPlaceForwarder
  private var toTheLeft: IxgbeInPlaceForwarder
  private let load: Load

  /// Takes queues 0 of both cards.
  init(_ a: IxgbeDevice, _ b: IxgbeDevice, _ load: Load) throws {
    self.load = load
    let toTheRight = try a.takeInPlaceForwarder(to: b)
    let toTheLeft = try b.takeInPlaceForwarder(to: a)
    self.toTheRight = toTheRight
    self.toTheLeft = toTheLeft
  }

  mutating func step(_ budget: inout some Budget) -> Int {
    let right = forward(&toTheRight, max: budget.next(load.batch), touch: load.touch)
    budget.took(right)
    let left = forward(&toTheLeft, max: budget.next(load.batch), touch: load.touch)
    budget.took(left)
    return right + left + (toTheRight.isFull || toTheLeft.isFull ? 1 : 0)
  }

  mutating func pending() -> Int { toTheRight.pending() + toTheLeft.pending() }
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

/// Any two cards: through batches.
struct BatchLane: Lane, ~Copyable {
  private var fromA: any ReceiveQueue & ~Copyable
  private var fromB: any ReceiveQueue & ~Copyable
  private var toA: any TransmitQueue & ~Copyable
  private var toB: any TransmitQueue & ~Copyable
  private var packets: PacketBatch
  private let load: Load
  private let drops: (a: DropCounter, b: DropCounter)

  /// Takes queues `id` of both cards.
  init(
    _ a: any EthernetDevice, _ b: any EthernetDevice, _ id: Int, _ pool: Mempool, _ load: Load,
    _ drops: (a: DropCounter, b: DropCounter)
  ) throws {
    self.load = load
    self.drops = drops
    let fromA = try a.receiveQueue(id, mempool: pool)
    let fromB = try b.receiveQueue(id, mempool: pool)
    let toA = try a.transmitQueue(id)
    let toB = try b.transmitQueue(id)
    self.fromA = fromA
    self.fromB = fromB
    self.toA = toA
    self.toB = toB
    packets = PacketBatch(capacity: load.batch)
  }

  mutating func step(_ budget: inout some Budget) throws -> Int {
    let toTheRight = try fromA.receive(into: &packets, max: budget.next(load.batch))
    budget.took(toTheRight)
    try load.send(&packets, by: &toB, drops.b)
    let toTheLeft = try fromB.receive(into: &packets, max: budget.next(load.batch))
    budget.took(toTheLeft)
    try load.send(&packets, by: &toA, drops.a)
    return toTheRight + toTheLeft
  }

  mutating func pending() throws -> Int { try toA.reclaim() + toB.reclaim() }
}

/// What is done with packets.
struct Load: Sendable {
  /// The most that are received and sent at a time.
  var batch = 32
  /// Whether the second byte of each frame is changed.
  var touch = false

  /// Does the work on a batch.
  func work(_ packets: inout PacketBatch) {
    if touch { packets.forEach { $0[1] &+= 1 } }
  }

  /// Works on a batch and sends it; what the ring has no room for is dropped and counted.
  func send(
    _ packets: inout PacketBatch, by queue: inout any TransmitQueue & ~Copyable,
    _ drops: DropCounter
  ) throws {
    work(&packets)
    _ = try queue.transmit(&packets)
    if !packets.isEmpty { drops.add(packets.count) }
    packets.removeAll()
  }
}
