import CIxy
import Glibc

/// A PCI card through VFIO: behind the IOMMU, for an ordinary user, with interrupts.
///
/// The kernel resets the card when it is opened and when it is closed, in whichever way the process ends;
/// what is not mapped in the domain, the card cannot reach.
public final class VFIODevice: NUMADevice {
  /// The card's address, as the kernel writes it.
  public let name: String
  let file: VFIODeviceFile
  /// Which interrupts are connected.
  var activeInterrupts: InterruptKind?
  private let card: SysfsCard
  private let config: VFIORegion
  private let space: any VFIOSpace
  private let domain: DMADomain
  // Open for as long as the card is ours: it carries the lock.
  private let lock: FileDescriptor

  /// Opens a card that is bound to vfio-pci.
  ///
  /// Its address space is that of the domain's other cards, as far as the IOMMU allows.
  ///
  /// - Parameters:
  ///   - address: Where it is.
  ///   - domain: The memory that it shares with other cards.
  ///   - allowsUnprotected: Whether the card may be behind no IOMMU at all, and see all memory.
  /// - Throws: `DeviceError` with the command that mends it.
  public convenience init(
    _ address: PCIAddress, domain: DMADomain, allowsUnprotected: Bool = false
  ) throws(DeviceError) {
    try self.init(SysfsCard(address), domain, allowsUnprotected: allowsUnprotected)
  }

  init(_ card: SysfsCard, _ domain: DMADomain, allowsUnprotected: Bool) throws(DeviceError) {
    name = "\(card.address)"
    self.card = card
    self.domain = domain
    lock = try card.lock()
    (space, file) = try openVFIO(card, domain, allowsUnprotected: allowsUnprotected)
    let info = try VFIOInfo(
      of: file.number, UInt(IXY_VFIO_DEVICE_GET_INFO), size: 20, "Ask about \(name)")
    guard info[4] & UInt32(VFIO_DEVICE_FLAGS_PCI) != 0, info[8] > VFIORegion.config else {
      throw .refused(
        "Use \(name) as a network card", found: "vfio has it, but not as a PCI device", advice: "")
    }
    config = try VFIORegion(VFIORegion.config, of: file.number, name: name)
  }

  /// The NUMA node that the card is attached to.
  public var numaNode: Int? { card.numaNode }

  /// Maps the registers behind a BAR, as far as they can be mapped.
  public func bar(_ index: Int) throws(DeviceError) -> BAR {
    guard 0..<6 ~= index else {
      throw .refused("Map BAR \(index) of \(name)", found: "there are only 6", advice: "")
    }
    let region = try VFIORegion(index, of: file.number, name: name)
    guard region.size > 0 else {
      throw .refused("Map BAR \(index) of \(name)", found: "the device has none", advice: "")
    }
    return try region.makeBAR(file)
  }

  /// Reads 1, 2 or 4 bytes of config space.
  public func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    var value: UInt32 = 0
    if unsafe pread(file.number, &value, width, config.offset + offset) == width { return value }
    throw .lastError("Read config space of \(name)")
  }

  /// Writes 1, 2 or 4 bytes of config space; the kernel keeps what it needs for itself.
  public func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    var value = value
    if unsafe pwrite(file.number, &value, width, config.offset + offset) == width { return }
    throw .lastError("Write config space of \(name)")
  }

  /// Does nothing more: the card was opened for its domain.
  public func attach(to domain: DMADomain) throws(DeviceError) {
    precondition(domain === self.domain, "the card was opened for another domain")
  }
}

/// What holds the address space of a card, for as long as the card is open.
protocol VFIOSpace: AnyObject {}

extension VFIOGroup: VFIOSpace {}

/// Opens a card's file in an address space of its domain's.
private func openVFIO(_ card: SysfsCard, _ domain: DMADomain, allowsUnprotected: Bool)
  throws(DeviceError) -> (any VFIOSpace, VFIODeviceFile)
{
  let name = "\(card.address)"
  guard card.driver?.hasPrefix("vfio") == true, let group = card.group else {
    throw .refused(
      "Open \(name) through VFIO",
      found: card.group == nil
        ? "it is behind no IOMMU" : "the driver \(card.driver ?? "none") has it",
      advice: "Run: sudo ixy bind \(name)")
  }
  if group.isUnprotected, !allowsUnprotected {
    throw .refused(
      "Open \(name)", found: "it is bound to vfio-pci, but no IOMMU protects the memory from it",
      advice: "Switch the IOMMU on (firmware, and intel_iommu=on on the kernel's command line), "
        + "or do without: --without-iommu.")
  }
  // Kernels that are built without groups have a node for each device instead.
  if unsafe access(group.node, F_OK) != 0, let node = card.deviceNode {
    let space = try IOMMUFDSpace.of(domain, root: card.root)
    let device = VFIODeviceFile(try space.open(node, name), name: name)
    // Only with a device in it can it map: not before.
    if domain.spaces(IOMMUFDSpace.self).isEmpty { try domain.attach(space) }
    return (space, device)
  }
  let opened = try openGroup(group, domain, for: card)
  return (opened, VFIODeviceFile(try opened.device(name), name: name))
}

/// Opens a card's group, in a container that the domain has already if the IOMMU allows.
private func openGroup(_ group: IOMMUGroup, _ domain: DMADomain, for card: SysfsCard)
  throws(DeviceError) -> VFIOGroup
{
  let name = "\(card.address)"
  for container in domain.spaces(VFIOContainer.self) {
    // Another kind of IOMMU wants a container of its own: EINVAL.
    do { return try container.group(group, for: name) } catch .system(_, EINVAL, _) {}
  }
  let container = try VFIOContainer(root: card.root, isProtected: !group.isUnprotected)
  let opened = try container.group(group, for: name)
  // Only with a group in it can it map: not before.
  if container.isProtected {
    try domain.attach(container)
  } else {
    try domain.usePhysicalAddresses()
  }
  return opened
}

extension DMADomain {
  /// The address spaces of one kind that map this domain's memory.
  func spaces<Space>(_ kind: Space.Type) -> [Space] {
    (mappers as? MapperList)?.mappers.compactMap { $0 as? Space } ?? []
  }
}
