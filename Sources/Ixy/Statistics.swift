import CIxy

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

/// What one queue has counted, written by its thread once a batch and read by any other.
@safe final class QueueCounters {
  /// Packets, bytes, errors.
  @usableFromInline let cells: UnsafeMutablePointer<UInt64>

  init() {
    unsafe cells = .allocate(capacity: 3)
    unsafe cells.initialize(repeating: 0, count: 3)
  }

  deinit { unsafe cells.deallocate() }

  var packets: UInt64 { unsafe ixy_load64(cells) }
  var bytes: UInt64 { unsafe ixy_load64(cells + 1) }
  var errors: UInt64 { unsafe ixy_load64(cells + 2) }
}

extension UnsafeMutablePointer<UInt64> {
  /// Adds to a counter that only this thread writes.
  @inlinable @inline(__always) func count(_ more: Int) {
    unsafe ixy_store64(self, pointee &+ UInt64(truncatingIfNeeded: more))
  }
}
