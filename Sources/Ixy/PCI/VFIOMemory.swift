import CIxy
import Glibc

extension VFIOContainer: DMAMapper {
  /// What the IOMMU and the devices behind it can do.
  ///
  /// Asked each time: a group that joins may take some away.
  var usableIOVAs: [ClosedRange<UInt64>] {
    let info = try? VFIOInfo(
      of: file.number, UInt(IXY_VFIO_IOMMU_GET_INFO), size: 32, "Ask the IOMMU what it can do")
    guard let info else { return [] }
    return Self.ranges(info)
  }

  /// The ranges in an answer to VFIO_IOMMU_GET_INFO.
  static func ranges(_ info: VFIOInfo) -> [ClosedRange<UInt64>] {
    let capability = Int(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
    let first = info[4] & 1 << 1 == 0 ? 0 : info[16]
    guard let pairs = info.pairs(ofCapability: capability, from: first) else {
      // Kernels before 5.7 do not say; every IOMMU has 39 bits.
      return [0...(1 << 39) - 1]
    }
    return pairs.filter { $0 <= $1 }.map { $0...$1 }.sorted { $0.lowerBound < $1.lowerBound }
  }

  /// Lets the devices see a block of memory.
  func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) {
    var request = vfio_iommu_type1_dma_map(
      argsz: UInt32(MemoryLayout<vfio_iommu_type1_dma_map>.size),
      flags: UInt32(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE),
      vaddr: UInt64(UInt(bitPattern: base)), iova: iova, size: UInt64(size))
    if unsafe ixy_ioctl(self.file.number, UInt(IXY_VFIO_IOMMU_MAP_DMA), &request) != 0 {
      throw mapError(errno, iova: iova, size: size)
    }
  }

  /// Takes a block away again; a device that still uses it gets a fault of the IOMMU.
  func unmap(iova: UInt64, size: Int) {
    var request = vfio_iommu_type1_dma_unmap()
    request.argsz = UInt32(MemoryLayout<vfio_iommu_type1_dma_unmap>.size)
    request.iova = iova
    request.size = UInt64(size)
    // The kernel does not refuse what was mapped so.
    _ = unsafe ixy_ioctl(file.number, UInt(IXY_VFIO_IOMMU_UNMAP_DMA), &request)
  }
}

/// Why memory could not be mapped for DMA, and what mends it.
func mapError(_ code: Int32, iova: UInt64, size: Int) -> DeviceError {
  let tried = "Map \(size >> 10) KiB at IOVA 0x\(String(iova, radix: 16))"
  switch code {
  case ENOMEM: return .system(tried, errno: code, advice: lockedMemoryAdvice(size))
  case EINVAL, EPERM, EEXIST:
    return .system(
      tried, errno: code,
      advice: "The IOMMU cannot reach this address, or it is taken. "
        + "Cards on sysfs and cards on VFIO cannot always share memory: bind all of them.")
  case ENOSPC:
    return .system(
      tried, errno: code,
      advice: "Too many mappings: raise /sys/module/vfio_iommu_type1/parameters/dma_entry_limit")
  default: return .system(tried, errno: code, advice: "")
  }
}

/// What to do when the kernel does not let this process lock `size` bytes more.
func lockedMemoryAdvice(_ size: Int) -> String {
  var limit = rlimit()
  unsafe getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit)
  // RLIM_INFINITY is all ones.
  if limit.rlim_cur == .max { return "The machine has no memory left for it." }
  let wanted = Int(clamping: limit.rlim_cur) / 1024 + max(size / 1024, 256 << 10)
  return
    "This process may lock \(limit.rlim_cur >> 10) KiB of memory. Allow more: ulimit -l \(wanted), or "
    + "for good: echo \"$USER - memlock \(wanted)\" | sudo tee /etc/security/limits.d/ixy.conf, and log in anew."
}
