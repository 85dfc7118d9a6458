/// Opens a card with the driver that its ids ask for.
///
/// Memory that is made from then on, for its rings and for mempools, is on the NUMA node of the domain's first
/// card, where there is enough. With several receive queues, frames are spread over them.
///
/// - Parameters:
///   - pci: The card.
///   - domain: The memory that it shares with other cards.
///   - configuration: Queues, rings and MTU.
/// - Returns: The card, reset and set up.
/// - Throws: When no driver knows it, or it does not come up.
public func openDevice(
  _ pci: any PCIDevice, domain: DMADomain, configuration: DeviceConfiguration = .init()
) throws(DeviceError) -> any EthernetDevice {
  if let node = (pci as? any NUMADevice)?.numaNode, domain.placeFile == nil {
    try domain.place(onNode: node)
  }
  switch driverName(for: try pci.identity()) {
  case "ixgbe":
    let device = try IxgbeDevice(pci, domain: domain, configuration: configuration)
    let queues = min(configuration.receiveQueues, device.spreadableQueues)
    if queues > 1 { try device.setReceiveSideScaling(ReceiveSideScaling(queues: queues)) }
    return device
  case "e1000e": return try E1000eDevice(pci, domain: domain, configuration: configuration)
  case "igb": return try IgbDevice(pci, domain: domain, configuration: configuration)
  case "vmxnet3": return try Vmxnet3Device(pci, domain: domain, configuration: configuration)
  case "virtio": return try VirtioDevice(pci, domain: domain, configuration: configuration)
  default:
    throw .refused(
      "Open \(pci.name)", found: "there is no driver for \(try pci.identity())",
      advice: "Run: ixy list")
  }
}

/// The driver that would take a card with these ids; nil when there is none.
public func driverName(for id: PCIIdentity) -> String? {
  if IxgbeDevice.supports(id) { return "ixgbe" }
  if E1000eDevice.supports(id) { return "e1000e" }
  if IgbDevice.supports(id) { return "igb" }
  if Vmxnet3Device.supports(id) { return "vmxnet3" }
  if VirtioDevice.supports(id) { return "virtio" }
  return nil
}
