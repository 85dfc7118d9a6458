extension IxgbeRegister {
  /// Multicast Control: MO in bits 1:0, MFE (filter enable) in bit 2.
  static let mcstctrl = Register<UInt32>(at: 0x05090)
  /// Multicast Table Array, word `n` of 128: one bit for each value of the hash.
  static func mta(_ n: Int) -> Register<UInt32> { Register(at: 0x05200 + 4 * n) }
}

extension IxgbeDevice {
  /// Makes `address` the card's own: frames to it are received.
  ///
  /// - Parameter address: A unicast address, not 0.
  /// - Throws: `DeviceError.refused` for any other.
  public func setMACAddress(_ address: MACAddress) throws(DeviceError) {
    guard !address.isMulticast, address.bits != 0 else {
      throw .refused(
        "Give \(name) the address \(address)", found: "no card can have it",
        advice: "Take one whose first byte is even, such as 02:00:00:00:00:01.")
    }
    let bytes = address.bits.byteSwapped >> 16
    bar[IxgbeRegister.ral0] = UInt32(truncatingIfNeeded: bytes)
    // AV with it: without, the filter would be off.
    bar[IxgbeRegister.rah0] = UInt32(truncatingIfNeeded: bytes >> 32) | 1 << 31
  }

  /// Receives frames to these multicast addresses, and to none else; broadcasts always pass.
  ///
  /// The card filters by a hash of 12 bits: some frames to other groups pass, too.
  public func setMulticastFilter(_ groups: [MACAddress]) {
    var table = [UInt32](repeating: 0, count: 128)
    for group in groups {
      // MO = 0: bits 47:36 of the address, as it goes over the wire.
      let hash = Int(group[4]) >> 4 | Int(group[5]) << 4
      table[hash >> 5] |= 1 << UInt32(hash & 31)
    }
    for (n, word) in table.enumerated() { bar[IxgbeRegister.mta(n)] = word }
    bar[IxgbeRegister.mcstctrl] = groups.isEmpty ? 0 : 1 << 2
  }

  /// Receives all multicast frames, or only those of the filter.
  public func setAllMulticast(_ on: Bool) {
    // MPE alone; setPromiscuous has UPE beside it.
    bar[IxgbeRegister.fctrl][8...8] = on ? 1 : 0
  }
}
