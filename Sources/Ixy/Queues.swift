/// The receiving end of one ring, for one thread; dropping it stops the ring.
public protocol ReceiveQueue: ~Copyable {
  /// Appends up to `max` received packets to `batch`, as far as it has room. Never blocks.
  ///
  /// - Parameters:
  ///   - batch: Where they go.
  ///   - max: The most to receive.
  /// - Returns: The number of packets appended.
  /// - Throws: When the device has broken its protocol, as for `TransmitQueue`.
  mutating func receive(into batch: inout PacketBatch, max: Int) throws(DeviceError) -> Int
}

/// The sending end of one ring, for one thread; dropping it stops the ring.
///
/// What it takes belongs to it until a later `transmit` or `reclaim` finds it sent. Everything throws when the device
/// has broken its protocol, or had to be stopped for another queue's sake (vmxnet3); that of ixgbe, igb and e1000e never
/// throws: whether a card is gone, `link()` says.
public protocol TransmitQueue: ~Copyable {
  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  ///
  /// - Returns: The number of packets taken.
  /// - Throws: As said above; the packets stay in the batch.
  mutating func transmit(_ batch: inout PacketBatch) throws(DeviceError) -> Int
  /// Sends one packet, or hands it back when the ring is full.
  ///
  /// - Throws: As said above; the packet is dropped.
  mutating func transmit(_ packet: consuming Packet) throws(DeviceError) -> Packet?
  /// Gives the buffers of packets that are sent back to their mempools.
  ///
  /// - Returns: The number of packets that the device still has.
  /// - Throws: As said above.
  mutating func reclaim() throws(DeviceError) -> Int
}
