/// The control plane of one network card: everything but the packets.
///
/// Not thread-safe: one thread opens the card, takes its queues and reads its counters. The queues may
/// then go to other threads, one each.
public protocol EthernetDevice: AnyObject {
  /// How messages name the card: its PCI address, or the text that the user gave.
  var name: String { get }
  /// The driver's name: "ixgbe", "virtio", ...
  var driverName: String { get }
  /// The card's own address, to which its frames are filtered.
  var macAddress: MACAddress { get }
  /// The receive and the transmit queues that were asked for.
  var queueCounts: (receive: Int, transmit: Int) { get }

  /// Sets receive queue `id` up and moves it to the caller, its one owner.
  ///
  /// - Parameters:
  ///   - id: 0 up to `queueCounts.receive`, each once.
  ///   - mempool: Where the queue takes its buffers from: at least as many as its ring has entries,
  ///     and each large enough for the card's longest frame.
  func receiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> any ReceiveQueue & ~Copyable
  /// Sets transmit queue `id` up and moves it to the caller, its one owner.
  func transmitQueue(_ id: Int) throws(DeviceError) -> any TransmitQueue & ~Copyable

  /// Whether there is a link, and how fast.
  func link() throws(DeviceError) -> Link
  /// Receives every frame on the wire, or only those for this card.
  func setPromiscuous(_ on: Bool)
  /// Everything counted since the card was opened.
  func statistics() -> Statistics
  /// Stops the card: no more DMA, bus mastering off. Also done when the device is dropped.
  func stop()
}

/// What a card is opened with.
public struct DeviceConfiguration: Sendable {
  /// Receive queues; more than one wants receive-side scaling set up.
  public var receiveQueues = 1
  /// Transmit queues.
  public var transmitQueues = 1
  /// Descriptors in each ring: a power of two from 64 to 4,096.
  public var ringEntries = 512
  /// The longest payload of a frame in bytes: frames of up to `mtu` + 18 bytes pass.
  public var mtu = 1500

  /// One queue each way for ordinary frames.
  public init() {}

  /// The longest frame without FCS, in bytes: two addresses, a VLAN tag and the type around the payload.
  public var maximumFrame: Int { mtu + 18 }

  /// The size for the buffers of a mempool, in bytes, so that each holds a whole frame.
  public var bufferSize: Int { max(2048, maximumFrame.roundedUp(to: 1024)) }
}

/// What a port's cable says.
public struct Link: Equatable, Sendable {
  /// The speed in Mbit/s, or 0 while the link is down.
  public var megabitsPerSecond: Int

  /// A link of this speed; 0 is no link.
  public init(megabitsPerSecond: Int) { self.megabitsPerSecond = megabitsPerSecond }

  /// Whether frames can pass.
  public var isUp: Bool { megabitsPerSecond > 0 }
}

/// The receiving end of one ring. It belongs to one thread; dropping it stops the ring.
public protocol ReceiveQueue: ~Copyable {
  /// Appends up to `max` received packets to `batch`, as far as it has room. Never blocks.
  ///
  /// - Returns: The number of packets appended.
  /// - Throws: When the device has broken its protocol; the ixgbe queue never does.
  mutating func receive(into batch: inout PacketBatch, max: Int) throws(DeviceError) -> Int
}

/// The sending end of one ring. It belongs to one thread; dropping it stops the ring.
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

/// What a fused forward does with a packet.
public enum Verdict {
  /// Sends it.
  case send
  /// Gives its buffer back.
  case drop
}
