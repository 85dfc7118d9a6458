private typealias Reg = IgbRegister

extension IgbDevice: EthernetDevice, @unchecked Sendable {
  /// How messages name the card.
  public var name: String { pci.name }
  /// The driver's name: "igb".
  public var driverName: String { "igb" }
  /// The receive and the transmit queues that were asked for.
  public var queueCounts: (receive: Int, transmit: Int) {
    (configuration.receiveQueues, configuration.transmitQueues)
  }

  /// The address that the card filters by: from its EEPROM, or the one that was set since.
  public var macAddress: MACAddress {
    let (low, high) = (bar[Reg.ral(0)], bar[Reg.rah(0)])
    let bytes = UInt64(low) | UInt64(high & 0xFFFF) << 32
    return MACAddress(bits: bytes.byteSwapped >> 16)
  }

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
    let status = bar[Reg.status]
    if status.bits == .max { throw .gone(device: name) }
    return Link(megabitsPerSecond: status.isLinkUp ? status.megabitsPerSecond : 0)
  }

  /// Receives every frame on the wire, or only those for this card.
  public func setPromiscuous(_ on: Bool) {
    rings.withLock { _ in
      if on { bar[Reg.rctl].insert(.promiscuous) } else { bar[Reg.rctl].remove(.promiscuous) }
    }
  }

  /// What a receive queue has counted.
  public func receiveStatistics(_ id: Int) -> QueueStatistics {
    precondition(0..<configuration.receiveQueues ~= id, "a queue that was not asked for")
    return unsafe QueueStatistics(counters(of: .receive(id)))
  }

  /// What a transmit queue has counted.
  public func transmitStatistics(_ id: Int) -> QueueStatistics {
    precondition(0..<configuration.transmitQueues ~= id, "a queue that was not asked for")
    return unsafe QueueStatistics(counters(of: .transmit(id)))
  }

  /// Everything counted since the card was opened.
  ///
  /// Packets and bytes are the queues' own counts, which are never short; drops and errors the card's, so
  /// read them more often than it can count to 2^32, and to 4,096 for each ring.
  public func statistics() -> Statistics {
    var sum = Statistics()
    for id in 0..<configuration.receiveQueues {
      sum.add(received: receiveStatistics(id))
      sum.receiveDropped += count(IgbRingRegisters.receive(id).dropCount, mask: 0xFFF)
    }
    for id in 0..<configuration.transmitQueues {
      sum.add(transmitted: transmitStatistics(id))
    }
    sum.receiveDropped += count(Reg.missedPackets)
    for counter in Reg.receiveErrors { sum.receiveErrors += count(counter) }
    return sum
  }

  /// Reads a counter of the card, which clears it, and adds it up.
  private func count(_ counter: Int, mask: UInt64 = .max) -> UInt64 {
    let new = bar.read(counter, width: 4)
    // The I210 and I211 clear a ring's counter when it is written.
    if mask != .max, family == .i210 || family == .i211 { bar.write(0, to: counter, width: 4) }
    // All ones: the card is gone, and counts nothing.
    return hardwareCounts.add(new >= UInt32.max ? 0 : new & mask, to: counter)
  }
}
