/// Opens a PCI card in the way that it is bound: through VFIO where vfio-pci has it, else through sysfs.
///
/// Through sysfs it is taken from its kernel driver, unless the kernel uses it, and a guardian process stops
/// it when this process is killed.
///
/// - Parameters:
///   - address: Where it is.
///   - domain: The memory that it shares with other cards.
///   - force: Takes it from the kernel even when its interface is up, has an address, carries a route or
///     is out of sight.
///   - allowsUnprotected: Opens a card on VFIO even where there is no IOMMU.
/// - Returns: The card, for `openDevice`.
/// - Throws: `DeviceError` with the reason and the command that mends it.
public func openCard(
  _ address: PCIAddress, domain: DMADomain, force: Bool = false, allowsUnprotected: Bool = false
) throws(DeviceError) -> any PCIDevice {
  let card = SysfsCard(address)
  switch try card.way() {
  case .vfio: return try VFIODevice(address, domain: domain, allowsUnprotected: allowsUnprotected)
  case .sysfs:
    try releaseFromKernel(address, force: force)
    return try GuardedDevice(SysfsDevice("\(address)"))
  }
}

extension SysfsCard {
  /// How a card is reached.
  enum Way { case vfio, sysfs }

  /// Decides; nothing is touched.
  func way() throws(DeviceError) -> Way {
    try requireSupported()
    if driver?.hasPrefix("vfio") == true { return .vfio }
    if group?.translates == true {
      throw .refused(
        "Open \(address) with physical addresses",
        found: "an IOMMU stands before it, and it is not bound to vfio-pci",
        advice: "Run: sudo modprobe vfio-pci; sudo ixy bind --user $USER \(address)")
    }
    return .sysfs
  }
}
