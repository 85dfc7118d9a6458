/// What kind of device it is, by config space.
public struct PCIIdentity: Equatable, Hashable, Sendable {
  /// Who made it: 0x8086 is Intel.
  public var vendor: UInt16
  /// Which device of that vendor.
  public var device: UInt16
}

extension PCIDevice {
  /// Vendor and device id, the first four bytes of config space.
  public func identity() throws(DeviceError) -> PCIIdentity {
    let ids = try readConfig(0, width: 4)
    return PCIIdentity(
      vendor: UInt16(truncatingIfNeeded: ids), device: UInt16(truncatingIfNeeded: ids >> 16))
  }

  /// Opens the device's registers, and lets it start DMA of its own or forbids that (Command, bits 1 and 2).
  public func setBusMaster(_ on: Bool) throws(DeviceError) {
    let command = try readConfig(4, width: 2)
    if command == 0xFFFF { throw .gone(device: name) }
    try writeConfig(on ? command | 0b110 : command & ~0b100 | 0b10, to: 4, width: 2)
  }
}
