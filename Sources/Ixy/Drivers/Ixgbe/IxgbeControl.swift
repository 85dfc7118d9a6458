/// Registers that the smallest forwarder does without.
extension IxgbeRegister {
  /// Link Status.
  static let links = Register<LinkStatus>(at: 0x042A4)
  /// Receive Address 0, low: the first four bytes of the MAC address, the first lowest.
  static let ral0 = Register<UInt32>(at: 0x05400)

  /// Frames that were damaged, too short or too long: CRCERRS, ILLERRC, ERRBC, RLEC, RUC, RFC, ROC and
  /// RJC.
  static let receiveErrors = [
    0x04000, 0x04004, 0x04008, 0x04040, 0x040A4, 0x040A8, 0x040AC, 0x040B0,
  ]
  /// Frames that were whole and lost: MPC of packet buffer 0, the only one in use, and QPRDC of set 0, which
  /// counts for all queues while RQSMR is 0.
  static let receiveDrops = [0x03FA0, 0x01430]
}

/// Link Status.
struct LinkStatus: RegisterValue {
  var bits: UInt32
  var isUp: Bool { bits[30...30] == 1 }
  /// LINK_SPEED, in Mbit/s.
  ///
  /// DATASHEET-UNSEEN: 0 is reserved on the 82599; 10 Mbit/s is ours.
  var megabitsPerSecond: Int { [10, 100, 1_000, 10_000][Int(bits[28...29])] }
}

extension IxgbeDevice: EthernetDevice, @unchecked Sendable {
  /// How messages name the card.
  public var name: String { pci.name }
  /// The driver's name: "ixgbe".
  public var driverName: String { "ixgbe" }
  /// The receive and the transmit queues that were asked for.
  public var queueCounts: (receive: Int, transmit: Int) {
    (configuration.receiveQueues, configuration.transmitQueues)
  }

  /// The address that the card filters by: from its EEPROM, or the one that was set since.
  public var macAddress: MACAddress {
    let (low, high) = (bar[IxgbeRegister.ral0], bar[IxgbeRegister.rah0])
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

  /// Whether this driver drives a card with these ids.
  public static func supports(_ id: PCIIdentity) -> Bool { family(of: id) != nil }

  /// Whether there is a link, and how fast.
  public func link() throws(DeviceError) -> Link {
    let links = bar[IxgbeRegister.links]
    if links.bits == .max { throw .gone(device: name) }
    return Link(megabitsPerSecond: links.isUp ? links.megabitsPerSecond : 0)
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
  /// read them more often than it can count to 2^32.
  public func statistics() -> Statistics {
    var sum = Statistics()
    for id in 0..<configuration.receiveQueues {
      sum.add(received: receiveStatistics(id))
    }
    for id in 0..<configuration.transmitQueues {
      sum.add(transmitted: transmitStatistics(id))
    }
    for counter in IxgbeRegister.receiveDrops { sum.receiveDropped += count(counter) }
    for counter in IxgbeRegister.receiveErrors { sum.receiveErrors += count(counter) }
    return sum
  }

  /// Reads a counter of the card, which clears it, and adds it up.
  func count(_ counter: Int) -> UInt64 {
    let new = bar.read(counter, width: 4)
    // All ones: the card is gone, and counts nothing.
    return hardwareCounts.add(new >= UInt32.max ? 0 : new, to: counter)
  }
}
