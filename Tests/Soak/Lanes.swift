import Ixy

/// The queues of two cards, and how frames go between them.
struct Lanes: ~Copyable {
  private var fromA: IxgbeReceiveQueue
  private var fromB: IxgbeReceiveQueue
  private var toA: IxgbeTransmitQueue
  private var toB: IxgbeTransmitQueue
  private var batch = PacketBatch(capacity: 64)
  private let isFused: Bool
  /// Frames that found a transmit ring full, by the card that they came from.
  private(set) var refused: [UInt64] = [0, 0]

  init(_ devices: [IxgbeDevice], _ pool: Mempool, isFused: Bool) throws {
    let fromA = try devices[0].takeReceiveQueue(0, mempool: pool)
    let fromB = try devices[1].takeReceiveQueue(0, mempool: pool)
    let toA = try devices[0].takeTransmitQueue(0)
    let toB = try devices[1].takeTransmitQueue(0)
    self.fromA = fromA
    self.fromB = fromB
    self.toA = toA
    self.toB = toB
    self.isFused = isFused
  }

  /// Forwards what is there both ways; more than 0 when there was something, or is.
  mutating func step() -> Int {
    if isFused {
      let moved =
        fromA.forward(to: &toB, max: 64) { _ in .send }
        + fromB.forward(to: &toA, max: 64) { _ in .send }
      return moved + (toA.isFull || toB.isFull ? 1 : 0)
    }
    let right = fromA.receive(into: &batch, max: 64)
    toB.transmit(&batch)
    refused[0] += UInt64(batch.count)
    batch.removeAll()
    let left = fromB.receive(into: &batch, max: 64)
    toA.transmit(&batch)
    refused[1] += UInt64(batch.count)
    batch.removeAll()
    return right + left
  }

  /// The number of frames that the cards have not fetched yet.
  mutating func pending() -> Int { toA.reclaim() + toB.reclaim() }
}
