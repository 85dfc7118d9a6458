extension PCIDevice {
  /// Where a capability is in config space, by its id; nil when the device has none.
  public func capability(_ wanted: Int) throws(DeviceError) -> Int? {
    // Status, bit 4: there is a list at all.
    if try readConfig(0x06, width: 2) & 1 << 4 == 0 { return nil }
    var offset = try Int(readConfig(0x34, width: 1)) & 0xFC
    // Config space has room for no more of them; a chain that is longer goes in circles.
    for _ in 0..<48 where offset >= 0x40 {
      let header = try Int(readConfig(offset, width: 2))
      if header & 0xFF == wanted { return offset }
      offset = header >> 8 & 0xFC
    }
    return nil
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
