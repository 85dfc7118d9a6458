/// The receiving end of one ring, for one thread; dropping it stops the ring.
public protocol ReceiveQueue: ~Copyable {
  /// Appends up to `max` received packets to `batch`, as far as it has room. Never blocks.
  ///
  /// - Parameters:
  ///   - batch: Where they go.
  ///   - max: The most to receive.
  /// - Returns: The number of packets appended.
  /// - Throws: When the device has broken its protocol; the ixgbe queue never does.
  mutating func receive(into batch: inout PacketBatch, max: Int) throws(DeviceError) -> Int
}

/// The sending end of one ring, for one thread; dropping it stops the ring.
public protocol TransmitQueue: ~Copyable {
  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  ///
  /// - Returns: The number of packets taken.
  mutating func transmit(_ batch: inout PacketBatch) throws(DeviceError) -> Int
  /// Sends one packet, or hands it back when the ring is full.
  mutating func transmit(_ packet: consuming Packet) throws(DeviceError) -> Packet?
  /// Gives the buffers of packets that are sent back to their mempools.
  ///
  /// - Returns: The number of packets that the device still has.
  mutating func reclaim() throws(DeviceError) -> Int
}
