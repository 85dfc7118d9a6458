/// The control plane of one network card: everything but the packets.
///
/// Every thread may have the card: take a queue for itself, drop it, read counters. What changes the set-up of
/// the whole card is for one thread at a time. Queues and mempools belong to one thread each, which the
/// compiler checks.
public protocol EthernetDevice: AnyObject, Sendable {
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
  /// - Returns: The queue, receiving.
  /// - Throws: When the device does not start the ring, or there is no memory for it. A queue that was not asked
  ///   for or is taken, and a pool that is too small, are the caller's mistake: drivers throw, or trap as ixgbe does.
  func receiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> any ReceiveQueue & ~Copyable
  /// Sets transmit queue `id` up and moves it to the caller, its one owner.
  ///
  /// - Parameter id: 0 up to `queueCounts.transmit`, each once.
  /// - Returns: The queue, empty.
  /// - Throws: As for a receive queue.
  func transmitQueue(_ id: Int) throws(DeviceError) -> any TransmitQueue & ~Copyable

  /// Whether there is a link, and how fast.
  ///
  /// - Throws: `DeviceError.gone` when the card reads as all ones.
  func link() throws(DeviceError) -> Link
  /// Receives every frame on the wire, or only those for this card.
  ///
  /// - Throws: When the card has to be asked (virtio), and refuses or does not answer.
  func setPromiscuous(_ on: Bool) throws(DeviceError)
  /// Everything counted since the card was opened.
  func statistics() -> Statistics
  /// What receive queue `id` has counted, 0 up to `queueCounts.receive`.
  ///
  /// Reads only memory, of which the queue's thread writes each word at once: no lock, and no wait for it.
  func receiveStatistics(_ id: Int) -> QueueStatistics
  /// What transmit queue `id` has counted, 0 up to `queueCounts.transmit`.
  func transmitStatistics(_ id: Int) -> QueueStatistics
  /// Sets up an interrupt for each receive queue and one for the link, all in one call.
  ///
  /// To be called once, before the first queue is taken. Each stays silent until it is enabled.
  ///
  /// - Parameter throttle: The shortest time between two interrupts of a queue.
  /// - Returns: The interrupts; they may go to the threads of their queues.
  /// - Throws: `DeviceError.refused` when the card or the way to it has none.
  func enableInterrupts(throttle: Duration) throws(DeviceError) -> DeviceInterrupts
  /// Stops the card: no more DMA, bus mastering off. Also done when the device is dropped.
  func stop()
}

extension EthernetDevice {
  /// Refuses: this driver only polls.
  public func enableInterrupts(throttle: Duration) throws(DeviceError) -> DeviceInterrupts {
    throw .refused(
      "Set up interrupts of \(name)", found: "the driver \(driverName) has none",
      advice: "Poll: --interrupts off")
  }
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
