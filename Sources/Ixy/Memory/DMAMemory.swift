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

/// One file in memory, mapped at the domain's base + IOVA.
@safe final class DMABlock {
  let file: FileDescriptor
  let base: UnsafeMutableRawPointer
  let iova: UInt64
  let size: Int
  private let domain: DMADomain
  private var used = 0

  init(file: consuming FileDescriptor, iova: UInt64, size: Int, domain: DMADomain)
    throws(DeviceError)
  {
    self.iova = iova
    self.size = size
    self.domain = domain
    // SAFETY: inside the address space that the domain has reserved, where nothing else is mapped.
    let target = unsafe domain.base.map { unsafe $0 + Int(iova) }
    let (protection, flags) = (PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | Int32(MAP_POPULATE))
    let found = unsafe mmap(target, size, protection, flags, file.number, 0)
    guard let found = unsafe found, unsafe found != MAP_FAILED else {
      throw .lastError("Map \(size) bytes of DMA memory", advice: "Free memory or huge pages.")
    }
    unsafe base = found
    self.file = file
  }

  deinit {
    domain.unmapBlock?(self)
    // The reservation comes back, so that nothing else moves in.
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | Int32(MAP_NORESERVE)
    unsafe mmap(base, size, PROT_NONE, flags, -1, 0)
    domain.freeIOVAs?(self)
  }

  /// The next part that is free; nil when it does not fit.
  func take(_ bytes: Int, _ alignment: Int) -> DMAMemory? {
    let start = used.roundedUp(to: alignment)
    if start + bytes > size { return nil }
    used = start + bytes
    return unsafe DMAMemory(
      base: base + start, iova: iova + UInt64(start), size: bytes, block: self)
  }
}

extension Int {
  /// The next multiple of `step`, a power of two.
  func roundedUp(to step: Int) -> Int { (self + step - 1) & ~(step - 1) }
}
