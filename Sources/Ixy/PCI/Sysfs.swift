import Glibc

/// A PCI card through sysfs: no IOMMU, physical addresses, root.
public final class SysfsDevice: PCIDevice {
  /// The card's address, as the kernel writes it.
  public let name: String
  let directory: String
  // Open for as long as the card is ours: it carries the lock.
  let config: FileDescriptor

  /// Opens a card that no kernel driver has, and that nobody else drives.
  ///
  /// - Parameter name: Its address, as in `0000:03:00.0`.
  /// - Throws: `DeviceError.refused` with the reason, or what the kernel says.
  public init(_ name: String) throws(DeviceError) {
    self.name = name
    directory = "/sys/bus/pci/devices/\(name)"
    guard name.allSatisfy({ $0.isHexDigit || $0 == ":" || $0 == "." }),
      firstLine(of: directory + "/class")?.hasPrefix("0x0200") == true
    else {
      throw .refused(
        "Open \(name)", found: "there is no Ethernet card at this address", advice: "Run: ixy list")
    }
    if unsafe access(directory + "/driver", F_OK) == 0 {
      throw .refused(
        "Open \(name)", found: "a kernel driver has it",
        advice: "Take it away: sudo ixy bind --release \(name)")
    }
    if firstLine(of: directory + "/iommu_group/type")?.hasPrefix("DMA") == true {
      throw .refused(
        "Open \(name) with physical addresses", found: "an IOMMU stands before it",
        advice: "Bind it to vfio-pci: sudo ixy bind \(name)")
    }
    config = try FileDescriptor(
      path: directory + "/config", O_RDWR, advice: "Run as root, or bind the card to vfio-pci.")
    if flock(config.number, LOCK_EX | LOCK_NB) != 0 {
      throw .lastError("Lock \(name)", advice: "Another process drives it; end that one first.")
    }
  }

  /// Maps the registers behind a memory BAR.
  public func bar(_ index: Int) throws(DeviceError) -> BAR {
    let path = "\(directory)/resource\(index)"
    let file = try FileDescriptor(path: path, O_RDWR)
    var status = stat()
    // Seeking to the end gives 0 before Linux 6.6: the file's pages are those of /dev/mem.
    let size = unsafe fstat(file.number, &status) == 0 ? Int(status.st_size) : 0
    let base = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0)
    guard let base = unsafe base, unsafe base != MAP_FAILED else {
      throw .lastError("Map \(path)", advice: "A locked-down kernel (secure boot) forbids it.")
    }
    return unsafe BAR(base, size: size)
  }

  /// Reads 1, 2 or 4 bytes of config space.
  public func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    var value: UInt32 = 0
    if unsafe pread(config.number, &value, width, offset) == width { return value }
    throw .lastError("Read config space of \(name)")
  }

  /// Writes 1, 2 or 4 bytes of config space.
  public func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    var value = value
    if unsafe pwrite(config.number, &value, width, offset) == width { return }
    throw .lastError("Write config space of \(name)")
  }

  /// The card sees all memory; the domain must hand out physical addresses.
  public func attach(to domain: DMADomain) throws(DeviceError) {
    try domain.usePhysicalAddresses()
  }
}
