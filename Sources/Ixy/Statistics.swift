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
