private typealias Reg = E1000eRegister

extension E1000eDevice: FrameFilter {
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

  /// Spreads frames over the receive rings that somebody serves.
  ///
  /// A frame for a ring without descriptors would hold up those for the other: the card has no way to drop it.
  func spreadFrames(over rings: Set<Int>) {
    let queues = rings.filter { $0 < 2 }.sorted()
    if queues.isEmpty { return }
    let table = ReceiveSideScaling.table(queues: queues.count) { UInt8(queues[$0]) << 7 }
    for (i, word) in table.enumerated() { bar[Reg.reta(i)] = word }
  }
}
