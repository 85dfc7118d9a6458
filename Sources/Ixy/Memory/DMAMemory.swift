import CIxy
import Glibc

/// Memory that a device reads and writes: a pointer for us, an IOVA for the device.
///
/// It is a part of a block; the block is unmapped when its last part is dropped. Stop the device first.
@safe public struct DMAMemory: ~Copyable {
  /// Where the processor sees it.
  public let base: UnsafeMutableRawPointer
  /// Where the device sees it.
  public let iova: UInt64
  /// The length in bytes.
  public let size: Int
  /// What it is a part of.
  let block: DMABlock
}

/// Gives a device access to blocks of memory: an IOMMU, a vfio-user socket or an emulated card.
public protocol DMAMapper: AnyObject {
  /// The IOVAs that it can map, in ascending order.
  var usableIOVAs: [ClosedRange<UInt64>] { get }
  /// Lets the device see `size` bytes of `file` from `offset`, in our memory at `base`, at `iova`.
  func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError)
  /// Takes one mapping away again.
  func unmap(iova: UInt64, size: Int)
}

/// One file in memory, mapped at `DMADomain.base + iova`.
@safe final class DMABlock {
  let file: FileDescriptor
  let base: UnsafeMutableRawPointer
  let iova: UInt64
  let size: Int
  let domain: DMADomain
  /// The bytes already handed out.
  var used = 0

  /// `base` is inside the address space that the domain has reserved, where nothing else is mapped.
  init(
    file: consuming FileDescriptor, base: UnsafeMutableRawPointer, iova: UInt64, size: Int,
    domain: DMADomain
  ) throws(DeviceError) {
    self.iova = iova
    self.size = size
    self.domain = domain
    unsafe self.base = unsafe base
    let protection = PROT_READ | PROT_WRITE
    let flags = MAP_SHARED | MAP_FIXED | Int32(MAP_POPULATE)
    guard unsafe mmap(base, size, protection, flags, file.number, 0) != MAP_FAILED else {
      throw .lastError("Map \(size) bytes of DMA memory", advice: "Free memory or huge pages.")
    }
    self.file = file
  }

  deinit {
    domain.release(iova: iova, size: size)
    // The reservation comes back, so that nothing else moves in.
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | Int32(MAP_NORESERVE)
    unsafe mmap(base, size, PROT_NONE, flags, -1, 0)
  }
}
