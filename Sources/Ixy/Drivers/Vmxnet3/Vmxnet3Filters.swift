extension Vmxnet3Device: FrameFilter, FrameSpreader {
  /// All that the card has.
  public var spreadableQueues: Int { Self.largestQueues }

  /// Sets key, fields and table, before the first receive queue is taken; the device hashes no ports of UDP.
  public func setReceiveSideScaling(_ scaling: ReceiveSideScaling) throws(DeviceError) {
    let isActive = state.withLock { $0.isActive }
    try require(scaling, fields: Vmxnet3RSS.fields, isReceiving: isActive)
    self.scaling = scaling
  }

  /// Receives every frame on the wire, or only those for this card.
  public func setPromiscuous(_ on: Bool) {
    if on { filter.mode.insert(.promiscuous) } else { filter.mode.remove(.promiscuous) }
    apply([.updateReceiveMode])
  }

  /// Changes the address that the card filters by.
  public func setMACAddress(_ address: MACAddress) throws(DeviceError) {
    try requireUnicast(address)
    filter.address = address
    state.withLock { state in if state.isActive { writeAddress() } }
  }

  /// Receives frames for these multicast groups, and for no others.
  public func setMulticast(_ addresses: [MACAddress]) throws(DeviceError) {
    try requireMulticast(addresses)
    guard addresses.count <= Vmxnet3Area.largestGroups else {
      throw .refused(
        "Receive multicast groups with \(name)", found: "\(addresses.count) are too many",
        advice: "Receive up to \(Vmxnet3Area.largestGroups), or use promiscuous mode.")
    }
    filter.groups = addresses
    if addresses.isEmpty { filter.mode.remove(.multicast) } else { filter.mode.insert(.multicast) }
    apply([.updateAddressFilters, .updateReceiveMode])
  }

  /// Receives tagged frames of these VLANs only.
  public func setVLANs(_ ids: [Int]?) throws(DeviceError) {
    if let ids {
      filter.vlans = try vlanTable(ids)
    } else {
      filter.vlans = [UInt32](repeating: .max, count: 128)
    }
    apply([.updateVLANFilters])
  }

  /// Writes the filter into the shared area, and tells the device which parts to read again; one that is not
  /// active reads all when it is activated.
  private func apply(_ commands: [Vmxnet3Register.Command]) {
    state.withLock { state in
      guard state.isActive, let area else { return }
      describeFilter(in: area)
      for command in commands { give(command) }
    }
  }
}
