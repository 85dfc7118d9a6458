extension Vmxnet3Device: FrameFilter, FrameSpreader {
  /// All that the card has.
  public var spreadableQueues: Int { Self.largestQueues }

  /// Sets key, fields and table, before the first receive queue is taken; the device hashes no ports of UDP.
  public func setReceiveSideScaling(_ scaling: ReceiveSideScaling) throws(DeviceError) {
    try state.withLock { state throws(DeviceError) in
      try require(scaling, fields: Vmxnet3RSS.fields, isReceiving: state.isActive)
      self.scaling = scaling
    }
  }

  /// Receives every frame on the wire, or only those for this card.
  public func setPromiscuous(_ on: Bool) {
    change([.updateReceiveMode]) { filter in
      if on { filter.mode.insert(.promiscuous) } else { filter.mode.remove(.promiscuous) }
    }
  }

  /// Changes the address that the card filters by.
  public func setMACAddress(_ address: MACAddress) throws(DeviceError) {
    try requireUnicast(address)
    state.withLock { state in
      filter.address = address
      if state.isActive { writeAddress() }
    }
  }

  /// Receives frames for these multicast groups, and for no others.
  public func setMulticast(_ addresses: [MACAddress]) throws(DeviceError) {
    try requireMulticast(addresses)
    guard addresses.count <= Vmxnet3Area.largestGroups else {
      throw .refused(
        "Receive multicast groups with \(name)", found: "\(addresses.count) are too many",
        advice: "Receive up to \(Vmxnet3Area.largestGroups), or use promiscuous mode.")
    }
    change([.updateAddressFilters, .updateReceiveMode]) { filter in
      filter.groups = addresses
      if addresses.isEmpty {
        filter.mode.remove(.multicast)
      } else {
        filter.mode.insert(.multicast)
      }
    }
  }

  /// Receives tagged frames of these VLANs only.
  public func setVLANs(_ ids: [Int]?) throws(DeviceError) {
    let table = try ids.map { ids throws(DeviceError) in try vlanTable(ids) }
    change([.updateVLANFilters]) { $0.vlans = table ?? [UInt32](repeating: .max, count: 128) }
  }

  /// Changes the filter, writes it into the shared area, and tells the device which parts to read again; one that
  /// is not active reads all when it is activated.
  ///
  /// Under the lock: a thread that takes the first queue reads the filter.
  private func change(_ commands: [Vmxnet3Register.Command], _ body: (inout Filter) -> Void) {
    state.withLock { state in
      body(&filter)
      guard state.isActive, let area else { return }
      describeFilter(in: area)
      for command in commands { give(command) }
    }
  }
}
