private typealias Reg = E1000eRegister

extension E1000eDevice: FrameFilter, FrameSpreader {
  /// Changes the address that the card filters by.
  public func setMACAddress(_ address: MACAddress) throws(DeviceError) {
    try requireUnicast(address)
    let bytes = (address.bits << 16).byteSwapped
    bar[Reg.ral(0)] = UInt32(truncatingIfNeeded: bytes)
    bar[Reg.rah(0)] = UInt32(truncatingIfNeeded: bytes >> 32) | 1 << 31
  }

  /// Receives frames for these multicast groups, by 12 bits of their addresses.
  public func setMulticast(_ addresses: [MACAddress]) throws(DeviceError) {
    try requireMulticast(addresses)
    var table = [UInt32](repeating: 0, count: 128)
    for address in addresses {
      // RCTL.MO = 0: the last 16 bits as a little-endian number, without its lowest four.
      let hash = Int(address[5]) << 4 | Int(address[4]) >> 4
      table[hash / 32] |= 1 << UInt32(hash % 32)
    }
    for (i, word) in table.enumerated() { bar[Reg.mta(i)] = word }
  }

  /// Receives tagged frames of these VLANs only.
  public func setVLANs(_ ids: [Int]?) throws(DeviceError) {
    if let ids {
      for (i, word) in try vlanTable(ids).enumerated() { bar[Reg.vfta(i)] = word }
    }
    rings.withLock { _ in bar[Reg.rctl].filtersVLANs = ids != nil }
  }

  // MARK: - Receive-side scaling

  /// What the card can hash: it knows no UDP.
  static let fields: ReceiveSideScaling.Fields = [.ipv4, .tcpIPv4, .ipv6, .tcpIPv6]

  /// All that the card has.
  public var spreadableQueues: Int { family.queues }

  /// Sets key, fields and table, before the first receive queue is taken.
  public func setReceiveSideScaling(_ scaling: ReceiveSideScaling) throws(DeviceError) {
    try require(scaling, fields: Self.fields, isReceiving: bar[Reg.rctl].isEnabled)
    for (i, word) in scaling.keyWords.enumerated() { bar[Reg.rssrk(i)] = word }
    bar[Reg.mrqc] = [.rss, Reg.MultipleQueues(rawValue: scaling.fields.rawValue)]
    rings.withLock { $0.table = scaling.table }
  }

  /// Spreads frames over the receive rings that somebody serves: the table, and its entries for others in turn.
  ///
  /// A frame for a ring without descriptors would hold up those for the other: the card has no way to drop it.
  func spreadFrames(over rings: Set<Int>, _ table: [Int]) {
    let queues = rings.filter { $0 < 2 }.sorted()
    if queues.isEmpty || table.isEmpty { return }
    var served = ReceiveSideScaling(queues: 1)
    served.table = table.enumerated().map { i, queue in
      queues.contains(queue) ? queue : queues[i % queues.count]
    }
    for (i, word) in served.tableWords({ UInt8($0) << 7 }).enumerated() { bar[Reg.reta(i)] = word }
  }
}
