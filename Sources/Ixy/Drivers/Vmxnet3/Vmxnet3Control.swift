private typealias Reg = Vmxnet3Register

extension Vmxnet3Device: EthernetDevice, @unchecked Sendable {
  /// How messages name the card.
  public var name: String { pci.name }
  /// The driver's name: "vmxnet3".
  public var driverName: String { "vmxnet3" }
  /// The receive and the transmit queues that were asked for.
  public var queueCounts: (receive: Int, transmit: Int) {
    (configuration.receiveQueues, configuration.transmitQueues)
  }

  /// The address that the card filters by: its own, or the one that was set since.
  public var macAddress: MACAddress { filter.address }

  /// Sets receive queue `id` up and moves it to the caller.
  public func receiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> any ReceiveQueue & ~Copyable
  { try takeReceiveQueue(id, mempool: mempool) }

  /// Sets transmit queue `id` up and moves it to the caller.
  public func transmitQueue(_ id: Int) throws(DeviceError) -> any TransmitQueue & ~Copyable {
    try takeTransmitQueue(id)
  }

  /// Whether there is a link, and how fast.
  public func link() throws(DeviceError) -> Link {
    let answer = state.withLock { _ in Reg.LinkState(bits: execute(.getLink)) }
    if answer.bits == .max { throw .gone(device: name) }
    // A link without a speed is a link.
    return Link(megabitsPerSecond: answer.isUp ? max(1, answer.megabitsPerSecond) : 0)
  }

  /// What a receive queue has counted.
  public func receiveStatistics(_ id: Int) -> QueueStatistics {
    precondition(0..<configuration.receiveQueues ~= id, "a queue that was not asked for")
    return unsafe QueueStatistics(counters(Self.index(receive: id)))
  }

  /// What a transmit queue has counted.
  public func transmitStatistics(_ id: Int) -> QueueStatistics {
    precondition(0..<configuration.transmitQueues ~= id, "a queue that was not asked for")
    return unsafe QueueStatistics(counters(Self.index(transmit: id)))
  }

  /// Everything counted since the card was opened.
  ///
  /// Packets, bytes and errors are the queues' own counts; what found no buffer only the device knows.
  public func statistics() -> Statistics {
    var sum = Statistics()
    for id in 0..<configuration.receiveQueues { sum.add(received: receiveStatistics(id)) }
    for id in 0..<configuration.transmitQueues { sum.add(transmitted: transmitStatistics(id)) }
    sum.receiveDropped = state.withLock { state in
      state.dropped &+ (state.isActive ? droppedSinceActivation() : 0)
    }
    return sum
  }

  /// The device's own address: its registers may still have another one, which was set before its reset.
  func readAddress() -> MACAddress {
    let (low, high) = (execute(.getAddressLow), execute(.getAddressHigh))
    let bytes = UInt64(low) | UInt64(high & 0xFFFF) << 32
    return MACAddress(bits: bytes.byteSwapped >> 16)
  }

  /// Tells the device its address.
  func writeAddress() {
    let bytes = (filter.address.bits << 16).byteSwapped
    control[Reg.macl] = UInt32(truncatingIfNeeded: bytes)
    control[Reg.mach] = UInt32(truncatingIfNeeded: bytes >> 32)
  }
}
