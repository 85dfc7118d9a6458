import CIxy
import Synchronization

/// What a port has counted since it was opened; bytes are without the FCS.
public struct Statistics: Equatable, Sendable {
  /// Frames handed to a receive queue.
  public var receivedPackets: UInt64 = 0
  /// Their bytes.
  public var receivedBytes: UInt64 = 0
  /// Frames sent.
  public var transmittedPackets: UInt64 = 0
  /// Their bytes.
  public var transmittedBytes: UInt64 = 0
  /// Frames that arrived whole and found no descriptor or no room on the card.
  public var receiveDropped: UInt64 = 0
  /// Frames that the application wanted to send, and dropped because the ring was full.
  public var transmitDropped: UInt64 = 0
  /// Frames that arrived damaged, too short or too long, or in a descriptor that cannot be right.
  public var receiveErrors: UInt64 = 0

  /// All zero.
  public init() {}

  /// What was counted between `earlier` and this reading.
  public func since(_ earlier: Statistics) -> Statistics {
    var rest = self
    rest.receivedPackets &-= earlier.receivedPackets
    rest.receivedBytes &-= earlier.receivedBytes
    rest.transmittedPackets &-= earlier.transmittedPackets
    rest.transmittedBytes &-= earlier.transmittedBytes
    rest.receiveDropped &-= earlier.receiveDropped
    rest.transmitDropped &-= earlier.transmitDropped
    rest.receiveErrors &-= earlier.receiveErrors
    return rest
  }
}

/// What one queue has counted since the card was opened; bytes are without the FCS.
public struct QueueStatistics: Equatable, Sendable {
  /// Frames received or sent.
  public var packets: UInt64 = 0
  /// Their bytes.
  public var bytes: UInt64 = 0
  /// Frames received in a descriptor that cannot be right, and dropped.
  public var errors: UInt64 = 0

  /// Reads the three counters of a queue, which its thread may be adding to.
  init(_ counters: UnsafeMutablePointer<UInt64>) {
    packets = unsafe ixy_load64(counters)
    bytes = unsafe ixy_load64(counters + 1)
    errors = unsafe ixy_load64(counters + 2)
  }
}

extension Statistics {
  /// Adds what a receive queue has counted.
  mutating func add(received queue: QueueStatistics) {
    receivedPackets &+= queue.packets
    receivedBytes &+= queue.bytes
    receiveErrors &+= queue.errors
  }

  /// Adds what a transmit queue has counted.
  mutating func add(transmitted queue: QueueStatistics) {
    transmittedPackets &+= queue.packets
    transmittedBytes &+= queue.bytes
  }
}

extension Mutex<[Int: UInt64]> {
  /// Adds what a card's short counter has counted since the last reading, and returns the sum.
  func add(_ new: UInt64, to counter: Int) -> UInt64 {
    withLock { counts in
      let total = counts[counter, default: 0] &+ new
      counts[counter] = total
      return total
    }
  }
}
