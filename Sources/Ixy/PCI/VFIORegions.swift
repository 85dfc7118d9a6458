import CIxy
import Glibc

/// A part of a device behind its file: a BAR, or config space.
struct VFIORegion {
  /// Config space, among the regions of a PCI device.
  static let config = VFIO_PCI_CONFIG_REGION_INDEX

  /// The size in bytes; 0 is a BAR that the device has not.
  let size: Int
  /// Where it begins in the device's file.
  let offset: Int
  /// The parts that can be mapped, in whole pages.
  let areas: [Range<Int>]

  /// Asks for region `index` of a device.
  init(_ index: Int, of file: Int32, name: String) throws(DeviceError) {
    let info = try VFIOInfo(
      of: file, UInt(IXY_VFIO_DEVICE_GET_REGION_INFO), size: 32, index: index,
      "Ask for BAR \(index) of \(name)")
    guard let region = Self(info) else {
      throw .misbehaved(device: name, "its region \(index) cannot be that large")
    }
    self = region
  }

  /// Reads an answer to VFIO_DEVICE_GET_REGION_INFO; nil when no device can be like that.
  init?(_ info: VFIOInfo) {
    // 2^40: more than any card has, and far from where adding wraps.
    guard info.wide(16) <= 1 << 40, info.wide(24) <= Int.max >> 1 else { return nil }
    (size, offset) = (Int(info.wide(16)), Int(info.wide(24)))
    let flags = info[4]
    if flags & UInt32(VFIO_REGION_INFO_FLAG_MMAP) == 0 {
      areas = []
      return
    }
    let first = flags & UInt32(VFIO_REGION_INFO_FLAG_CAPS) == 0 ? 0 : info[12]
    let sparse = info.pairs(ofCapability: Int(VFIO_REGION_INFO_CAP_SPARSE_MMAP), from: first)
    let all = size
    areas = (sparse ?? [(0, UInt64(size))]).compactMap { start, count in
      guard start < all, count > 0, count <= UInt64(all) - start else { return nil }
      // Only whole pages can be mapped. What is left over is forwarded.
      let lower = Int(start).roundedUp(to: 4096)
      let upper = (Int(start) + Int(count)) & ~4095
      return lower < upper ? lower..<upper : nil
    }
  }

  /// Maps what can be mapped; everything else goes through the device's file.
  func makeBAR(_ file: VFIODeviceFile) throws(DeviceError) -> BAR {
    let access = VFIORegisters(file, self)
    if areas.isEmpty { return ForwardedBAR(access, size: size) }
    // Address space for all, so that a register's address is one addition.
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | Int32(MAP_NORESERVE)
    let base = unsafe mmap(nil, size, PROT_NONE, flags, -1, 0)
    guard let base = unsafe base, unsafe base != MAP_FAILED else {
      throw .lastError(
        "Reserve address space for registers", advice: "Is there a limit (ulimit -v)?")
    }
    for area in areas {
      let target = unsafe base + area.lowerBound
      let shared = MAP_SHARED | MAP_FIXED
      let found = unsafe mmap(
        target, area.count, PROT_READ | PROT_WRITE, shared, file.number, offset + area.lowerBound)
      if unsafe found == MAP_FAILED {
        let code = errno
        unsafe munmap(base, size)
        throw .system("Map registers of \(file.name)", errno: code, advice: "")
      }
    }
    // A card that is pulled out, or put to sleep, makes an access fail with SIGBUS.
    ixy_survive_truncation()
    return unsafe ForwardedBAR(access, size: size, base: base, mapped: areas)
  }
}

/// An open device of vfio's.
final class VFIODeviceFile {
  let name: String
  private let file: FileDescriptor
  var number: Int32 { file.number }

  init(_ file: consuming FileDescriptor, name: String) {
    self.file = file
    self.name = name
  }
}

/// Accesses to a region as reads and writes of the device's file.
final class VFIORegisters: RegisterAccess {
  private let file: VFIODeviceFile
  private let region: VFIORegion

  init(_ file: VFIODeviceFile, _ region: VFIORegion) {
    self.file = file
    self.region = region
  }

  func read(_ offset: Int, width: Int) -> UInt64 {
    var value: UInt64 = 0
    let got = unsafe pread(file.number, &value, width, region.offset + offset)
    // Little endian, as all machines that we run on.
    return got == width ? value : .max >> UInt64(64 - 8 * width)
  }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    var value = value
    // Nobody to tell: the next read gives all ones.
    _ = unsafe pwrite(file.number, &value, width, region.offset + offset)
  }
}
