import CIxy
import Glibc

/// The address space that some groups of devices share behind the IOMMU (/dev/vfio/vfio).
///
/// It maps the memory of one `DMADomain`; when the last device is gone, so are its mappings.
final class VFIOContainer {
  let file: FileDescriptor
  /// Without an IOMMU, devices see all memory.
  let isProtected: Bool
  private var hasIOMMU = false
  private var groups: [() -> VFIOGroup?] = []

  /// An empty container.
  ///
  /// - Parameters:
  ///   - root: What comes before `/dev`.
  ///   - isProtected: Whether there is an IOMMU.
  /// - Throws: When vfio is not there, or not for us.
  init(root: String, isProtected: Bool) throws(DeviceError) {
    self.isProtected = isProtected
    let path = "\(root)/dev/vfio/vfio"
    file = try FileDescriptor(device: path) { VFIOAdvice.container($0, path) }
    let version = ixy_ioctl_value(file.number, UInt(IXY_VFIO_GET_API_VERSION), 0)
    guard version == 0 else {
      throw .refused(
        "Use \(path)", found: "it speaks version \(version) of its API", advice: "We know 0.")
    }
    let type = UInt(isProtected ? VFIO_TYPE1v2_IOMMU : VFIO_NOIOMMU_IOMMU)
    guard ixy_ioctl_value(file.number, UInt(IXY_VFIO_CHECK_EXTENSION), type) > 0 else {
      throw .refused(
        "Use \(path)", found: "it has no IOMMU of the kind that we use (type1v2)",
        advice: "Run: sudo modprobe vfio_iommu_type1")
    }
  }

  /// The group of that name, opened once.
  func group(_ group: IOMMUGroup, for name: String) throws(DeviceError) -> VFIOGroup {
    if let known = groups.lazy.compactMap({ $0() }).first(where: { $0.name == group.name }) {
      return known
    }
    let new = try VFIOGroup(group, in: self, for: name)
    groups.removeAll { $0() == nil }
    groups.append { [weak new] in new }
    return new
  }

  /// Chooses the IOMMU's kind, which wants a first group.
  fileprivate func setIOMMU(for name: String) throws(DeviceError) {
    if hasIOMMU { return }
    let type = UInt(isProtected ? VFIO_TYPE1v2_IOMMU : VFIO_NOIOMMU_IOMMU)
    if ixy_ioctl_value(file.number, UInt(IXY_VFIO_SET_IOMMU), type) != 0 {
      throw .lastError(
        "Put \(name) behind the IOMMU", advice: VFIOAdvice.iommu(errno, isProtected: isProtected))
    }
    hasIOMMU = true
  }
}

/// An IOMMU group that is ours (/dev/vfio/N).
final class VFIOGroup {
  let name: String
  private let file: FileDescriptor
  // A group without container loses its devices.
  let container: VFIOContainer

  fileprivate init(_ group: IOMMUGroup, in container: VFIOContainer, for card: String)
    throws(DeviceError)
  {
    name = group.name
    self.container = container
    let isProtected = !group.isUnprotected
    file = try FileDescriptor(device: group.node) {
      VFIOAdvice.group($0, isProtected: isProtected, card: card)
    }
    var status = vfio_group_status(
      argsz: UInt32(MemoryLayout<vfio_group_status>.size), flags: 0)
    if unsafe ixy_ioctl(file.number, UInt(IXY_VFIO_GROUP_GET_STATUS), &status) != 0 {
      throw .lastError("Ask group \(name) for its status")
    }
    if status.flags & UInt32(VFIO_GROUP_FLAGS_VIABLE) == 0 {
      try group.requireViable(for: card)
      throw .refused(
        "Open \(card)", found: "its IOMMU group \(name) is not viable",
        advice:
          "Look at who has its members: ls -l /sys/kernel/iommu_groups/\(name)/devices/*/driver")
    }
    var number = container.file.number
    if unsafe ixy_ioctl(file.number, UInt(IXY_VFIO_GROUP_SET_CONTAINER), &number) != 0 {
      throw .lastError("Put group \(name) into a container")
    }
    try container.setIOMMU(for: card)
  }

  /// Opens a device of the group.
  func device(_ name: String) throws(DeviceError) -> FileDescriptor {
    let number = unsafe name.withCString { name in
      unsafe ixy_ioctl(
        file.number, UInt(IXY_VFIO_GROUP_GET_DEVICE_FD), UnsafeMutableRawPointer(mutating: name))
    }
    if number < 0 {
      throw .lastError("Open \(name) in group \(self.name)", advice: "Run: sudo ixy bind \(name)")
    }
    return FileDescriptor(owning: number)
  }
}

/// What mends an error on the way to a card.
enum VFIOAdvice {
  /// `/dev/vfio/vfio` cannot be opened.
  static func container(_ code: Int32, _ path: String) -> String {
    code == EACCES
      ? "Let everyone open it, which harms nobody: sudo chmod 666 \(path)"
      : "Run: sudo modprobe vfio-pci"
  }

  /// The node of a card's group cannot be opened.
  static func group(_ code: Int32, isProtected: Bool, card: String) -> String {
    switch code {
    case EBUSY: "Another process has a card of this group; end that one first."
    case EPERM where !isProtected: "Without an IOMMU it takes root."
    case EACCES: "Give the group to yourself: sudo ixy bind --user $USER \(card)"
    default: "Run: sudo ixy bind \(card)"
    }
  }

  /// The container does not take an IOMMU.
  static func iommu(_ code: Int32, isProtected: Bool) -> String {
    guard code == EPERM, isProtected else { return "" }
    return "The IOMMU cannot remap interrupts. If nobody hostile has the card: echo 1 | sudo tee "
      + "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
  }
}
