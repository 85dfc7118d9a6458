private typealias Reg = IgbRegister

extension IgbDevice: FrameFilter, FrameSpreader {
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
    guard let ids else {
      rings.withLock { _ in _ = bar[Reg.rctl].remove(.vlanFilter) }
      return
    }
    let table = try vlanTable(ids)
    for (i, word) in table.enumerated() {
      // The I350 may lose a write to this table: known drivers repeat it ten times.
      for _ in 0..<(family == .i350 ? 10 : 1) { bar[Reg.vfta(i)] = word }
    }
    rings.withLock { _ in _ = bar[Reg.rctl].insert(.vlanFilter) }
  }

  // MARK: - Receive-side scaling

  /// All that the card has.
  public var spreadableQueues: Int { family.queues }

  /// Sets key, fields and table, before the first receive queue is taken.
  public func setReceiveSideScaling(_ scaling: ReceiveSideScaling) throws(DeviceError) {
    try require(scaling, fields: .all, isReceiving: bar[Reg.rctl].contains(.enabled))
    let table = scaling.tableWords { UInt8($0) }
    for (i, word) in table.enumerated() { bar[Reg.reta(i)] = word }
    for (i, word) in scaling.keyWords.enumerated() { bar[Reg.rssrk(i)] = word }
    bar[Reg.mrqc] = [.rss, Reg.MultipleQueues(rawValue: scaling.fields.rawValue)]
  }
}
