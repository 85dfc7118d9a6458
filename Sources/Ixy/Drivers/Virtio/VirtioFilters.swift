private typealias Field = VirtioNetConfiguration

extension VirtioDevice: FrameFilter {
  /// Receives all multicast frames, or only those that pass the filter.
  public func setAllMulticast(_ on: Bool) throws(DeviceError) {
    if features.contains(.controlReceive) { try control?.send(.allMulticast(on)) }
  }

  /// Receives frames for these addresses, too: at most 64 of each kind.
  ///
  /// - Throws: `DeviceError.refused` when the device has no such filter, or there are too many.
  public func setFilter(unicast: [MACAddress], multicast: [MACAddress]) throws(DeviceError) {
    guard features.contains(.controlReceive), max(unicast.count, multicast.count) <= 64 else {
      throw .refused(
        "Filter addresses on \(name)", found: "the device has no filter for so many",
        advice: "Use promiscuous mode.")
    }
    try control?.send(.filter(unicast: unicast, multicast: multicast))
  }

  /// Receives frames for these multicast groups, at most 64, and for no others.
  public func setMulticast(_ addresses: [MACAddress]) throws(DeviceError) {
    try requireMulticast(addresses)
    try setFilter(unicast: [], multicast: addresses)
  }

  /// Gives the card another address.
  ///
  /// - Throws: `DeviceError.refused` when a modern device offers no command for it.
  public func setMACAddress(_ address: MACAddress) throws(DeviceError) {
    try requireUnicast(address)
    if features.contains(.controlMAC) {
      try control?.send(.setAddress(address))
    } else if !transport.isModern {
      for i in 0..<6 { transport.setConfiguration(address[i], at: Field.mac + i) }
    } else if features.contains(.mac) {
      throw .refused(
        "Set the address of \(name)", found: "the device offers no command for it",
        advice: "Set it where the device is made; in QEMU: mac=.")
    }
    // A device that has none does not filter by it: it is ours alone.
    macAddress = address
  }

  /// Lets frames of a VLAN pass, or not any more; the card was opened with `filtersVLANs`.
  public func setVLAN(_ id: UInt16, _ passes: Bool) throws(DeviceError) {
    guard features.contains(.controlVLAN), id < 4096 else {
      throw .refused(
        "Filter VLAN \(id) on \(name)",
        found: "the device was not asked for it, or has no such filter",
        advice: "Open it with filtersVLANs. VLANs are 0 to 4095.")
    }
    try control?.send(passes ? .addVLAN(id) : .removeVLAN(id))
    if passes { passingVLANs.insert(Int(id)) } else { passingVLANs.remove(Int(id)) }
  }

  /// Receives tagged frames of these VLANs only, or of all; each is a command of its own.
  public func setVLANs(_ ids: [Int]?) throws(DeviceError) {
    if ids == nil, !features.contains(.controlVLAN) { return }
    _ = try vlanTable(ids ?? [])
    let wanted = Set(ids ?? Array(0..<4096))
    for id in passingVLANs.subtracting(wanted).sorted() { try setVLAN(UInt16(id), false) }
    for id in wanted.subtracting(passingVLANs).sorted() { try setVLAN(UInt16(id), true) }
  }
}
