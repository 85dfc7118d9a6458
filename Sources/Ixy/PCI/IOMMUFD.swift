import CIxy
import Glibc

extension SysfsCard {
  /// The node that opens this device alone, without its group; nil before Linux 6.6.
  var deviceNode: String? {
    let name = entries(of: directory + "/vfio-dev").first { $0.hasPrefix("vfio") }
    return name.map { "\(root)/dev/vfio/devices/\($0)" }
  }
}

/// An address space that cards share behind the IOMMU, by way of /dev/iommu.
///
/// UNTESTED: no kernel that this was tried on has these nodes. Groups, where they exist, come first.
final class IOMMUFDSpace: DMAMapper, VFIOSpace {
  private let file: FileDescriptor
  /// The kernel's number for the address space.
  private let id: UInt32

  /// The domain's own address space of this kind; a new one where it has none.
  static func of(_ domain: DMADomain, root: String) throws(DeviceError) -> IOMMUFDSpace {
    if let known = domain.spaces(IOMMUFDSpace.self).first { return known }
    return try IOMMUFDSpace(root: root)
  }

  private init(root: String) throws(DeviceError) {
    let path = "\(root)/dev/iommu"
    file = try FileDescriptor(device: path) { code in
      code == EACCES ? "Run: sudo chmod 666 \(path)" : "Run: sudo modprobe iommufd"
    }
    var request = ixy_iommufd_alloc()
    request.size = UInt32(MemoryLayout<ixy_iommufd_alloc>.size)
    if unsafe ixy_ioctl(file.number, UInt(IXY_IOMMU_IOAS_ALLOC), &request) != 0 {
      throw .lastError("Make an address space for DMA")
    }
    id = request.out_id
  }

  /// Opens a device, and puts it into this address space.
  func open(_ node: String, _ name: String) throws(DeviceError) -> FileDescriptor {
    let device = try FileDescriptor(device: node) { code in
      switch code {
      case EACCES: "Give it to yourself: sudo ixy bind --user $USER \(name)"
      case EBUSY: "Another process has it; end that one first."
      default: "Run: sudo ixy bind \(name)"
      }
    }
    var bind = ixy_vfio_bind()
    bind.size = UInt32(MemoryLayout<ixy_vfio_bind>.size)
    bind.iommufd = file.number
    if unsafe ixy_ioctl(device.number, UInt(IXY_VFIO_DEVICE_BIND_IOMMUFD), &bind) != 0 {
      throw .lastError(
        "Open \(name)",
        advice:
          "Does a driver of the kernel have another card of its IOMMU group, or another process?")
    }
    var attach = ixy_vfio_attach()
    attach.size = UInt32(MemoryLayout<ixy_vfio_attach>.size)
    attach.id = id
    if unsafe ixy_ioctl(device.number, UInt(IXY_VFIO_DEVICE_ATTACH_IOMMUFD_PT), &attach) != 0 {
      throw .lastError("Put \(name) behind the IOMMU")
    }
    return device
  }

  /// What the IOMMU and the devices behind it can do.
  var usableIOVAs: [ClosedRange<UInt64>] {
    // 256: more than any machine has reserved; the kernel refuses where it is too few.
    var ranges = [ixy_iommufd_range](repeating: ixy_iommufd_range(), count: 256)
    let room = ranges.count
    let count = unsafe ranges.withUnsafeMutableBytes { buffer -> Int in
      var request = ixy_iommufd_ranges()
      request.size = UInt32(MemoryLayout<ixy_iommufd_ranges>.size)
      request.id = id
      request.count = UInt32(room)
      request.ranges = UInt64(UInt(bitPattern: buffer.baseAddress))
      let result = unsafe ixy_ioctl(file.number, UInt(IXY_IOMMU_IOAS_IOVA_RANGES), &request)
      return result == 0 ? min(room, Int(request.count)) : 0
    }
    return ranges.prefix(count).filter { $0.start <= $0.last }.map { $0.start...$0.last }
  }

  func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) {
    var request = ixy_iommufd_map()
    request.size = UInt32(MemoryLayout<ixy_iommufd_map>.size)
    request.flags = IXY_IOMMU_MAP_FLAGS
    request.id = id
    request.address = UInt64(UInt(bitPattern: base))
    request.length = UInt64(size)
    request.iova = iova
    if unsafe ixy_ioctl(self.file.number, UInt(IXY_IOMMU_IOAS_MAP), &request) != 0 {
      throw mapError(errno, iova: iova, size: size)
    }
  }

  func unmap(iova: UInt64, size: Int) {
    var request = ixy_iommufd_unmap()
    request.size = UInt32(MemoryLayout<ixy_iommufd_unmap>.size)
    request.id = id
    request.iova = iova
    request.length = UInt64(size)
    // The kernel does not refuse what was mapped so.
    _ = unsafe ixy_ioctl(file.number, UInt(IXY_IOMMU_IOAS_UNMAP), &request)
  }
}
