import Glibc

/// What sysfs tells about a PCI device; nothing is opened or changed by asking.
public struct SysfsCard: Sendable {
  /// Where the device is.
  public let address: PCIAddress
  /// What comes before `/sys` and `/dev`; not empty in tests alone.
  let root: String

  /// The device at an address, which may have none.
  public init(_ address: PCIAddress) { self.init(address, root: "") }

  init(_ address: PCIAddress, root: String) {
    self.address = address
    self.root = root
  }

  /// Where its files are.
  var directory: String { "\(root)/sys/bus/pci/devices/\(address)" }

  /// Vendor and device id; nil when there is no device.
  public var identity: PCIIdentity? {
    guard let vendor = number("vendor"), let device = number("device") else { return nil }
    return PCIIdentity(
      vendor: UInt16(truncatingIfNeeded: vendor), device: UInt16(truncatingIfNeeded: device))
  }

  /// Class, subclass and programming interface; 0x0200 above the last byte is an Ethernet card.
  public var classCode: Int? { number("class") }

  /// The kernel driver that has it.
  public var driver: String? { linkName(directory + "/driver") }

  /// Its group; nil where no IOMMU is on.
  public var group: IOMMUGroup? {
    linkName(directory + "/iommu_group").map { IOMMUGroup(name: $0, root: root) }
  }

  /// The NUMA node that it is attached to; nil where there is only one.
  public var numaNode: Int? {
    firstLine(of: directory + "/numa_node").flatMap { Int($0) }.flatMap { $0 < 0 ? nil : $0 }
  }

  /// A number that sysfs writes as `0x...`.
  private func number(_ file: String) -> Int? {
    firstLine(of: "\(directory)/\(file)").flatMap { Int($0.dropFirst(2), radix: 16) }
  }
}

/// Devices that the IOMMU cannot tell apart: who has one of them can reach the memory of all.
public struct IOMMUGroup: Sendable, Equatable {
  /// Its number, as the kernel writes it.
  public let name: String
  let root: String

  private var directory: String { "\(root)/sys/kernel/iommu_groups/\(name)" }

  /// All devices of the group.
  public var members: [SysfsCard] {
    entries(of: directory + "/devices").compactMap {
      PCIAddress($0).map { SysfsCard($0, root: root) }
    }
  }

  /// Whether the kernel's own drivers get IOVAs here, and not physical addresses.
  public var translates: Bool { firstLine(of: directory + "/type")?.hasPrefix("DMA") == true }

  /// Whether vfio made it up for a card behind no IOMMU.
  public var isUnprotected: Bool { firstLine(of: directory + "/name") == "vfio-noiommu" }

  /// The device node that opens the group.
  public var node: String { "\(root)/dev/vfio/\(isUnprotected ? "noiommu-" : "")\(name)" }

  /// The members that drivers of the kernel have, who would share the group with us.
  ///
  /// A bridge does no DMA of its own, and its driver may stay.
  public var strangers: [SysfsCard] {
    members.filter { card in
      guard let driver = card.driver else { return false }
      return !driver.hasPrefix("vfio") && driver != "pci-stub" && driver != "pcieport"
    }
  }

  /// Refuses while a driver of the kernel has another member.
  func requireViable(for name: String) throws(DeviceError) {
    let strangers = strangers
    if strangers.isEmpty { return }
    let list = strangers.map { "\($0.address) (driver \($0.driver ?? "unknown"))" }
    let commands = strangers.map { stranger in
      // 0x02: network. For anything else there is no command of ours.
      (stranger.classCode ?? 0) >> 16 == 0x02
        ? "sudo ixy bind \(stranger.address)"
        : "echo \(stranger.address) | sudo tee \(stranger.directory)/driver/unbind"
    }
    throw .refused(
      "Open \(name)",
      found: "its IOMMU group \(self.name) also holds \(list.joined(separator: ", "))",
      advice: "Take them from the kernel, too, if you can do without them: "
        + commands.joined(separator: "; "))
  }
}

/// The last part of what a symbolic link points to; nil when there is none.
func linkName(_ path: String) -> String? {
  var target = [UInt8](repeating: 0, count: 4096)
  let size = unsafe readlink(path, &target, target.count)
  return String(decoding: target.prefix(max(0, size)), as: UTF8.self)
    .split(separator: "/").last.map(String.init)
}
