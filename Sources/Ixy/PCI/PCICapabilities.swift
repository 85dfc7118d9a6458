/// An entry of the capability list in config space.
public struct PCICapability {
  /// What it is: 0x05 is MSI, 0x09 vendor specific, 0x11 MSI-X.
  public let id: Int
  /// Where it starts in config space.
  public let offset: Int
}

extension PCIDevice {
  /// The capability list, in its order; as far as it makes sense, should the device not.
  public func capabilities() throws(DeviceError) -> [PCICapability] {
    // Status, bit 4: there is a list at all.
    if try readConfig(0x06, width: 2) & 1 << 4 == 0 { return [] }
    var found: [PCICapability] = []
    var offset = try Int(readConfig(0x34, width: 1)) & 0xFC
    // Config space has room for no more of them; a chain that is longer goes in circles.
    for _ in 0..<48 where offset >= 0x40 {
      let header = try Int(readConfig(offset, width: 2))
      found.append(PCICapability(id: header & 0xFF, offset: offset))
      offset = header >> 8 & 0xFC
    }
    return found
  }

  /// Where a capability is in config space, by its id; nil when the device has none.
  public func capability(_ wanted: Int) throws(DeviceError) -> Int? {
    try capabilities().first { $0.id == wanted }?.offset
  }

  /// Switches MSI or MSI-X on or off in its capability; INTx needs nothing.
  ///
  /// The kernel does this by itself; devices that are reached otherwise want it from their driver.
  public func switchInterrupts(_ kind: InterruptKind, on: Bool) throws(DeviceError) {
    let (id, flag): (Int, UInt32)
    switch kind {
    case .intx: return
    case .msi: (id, flag) = (0x05, 1 << 0)
    case .msix: (id, flag) = (0x11, 1 << 15)
    }
    guard let offset = try capability(id) else { return }
    let control = try readConfig(offset + 2, width: 2)
    try writeConfig(on ? control | flag : control & ~flag, to: offset + 2, width: 2)
  }
}
