import CIxy
import Glibc

/// The devices that share packets, and the memory that all of them can reach.
///
/// A forwarder opens both its cards in one domain. IOVAs come from a low counter or, when a card of the
/// domain is on sysfs, they are physical addresses. Either way every byte lies at `base + IOVA`, so that
/// the packet path adds and looks nothing up. Not thread-safe.
@safe public final class DMADomain {
  /// The size of a huge page, and the least that a block of memory takes.
  static let pageSize = 2 << 20
  /// Address space kept free for a domain: what the counter can hand out, or the largest physical address.
  private static let counted = 64 << 30
  private static let physical = 1 << 44

  /// Where IOVA 0 would be in our memory; nil until there is memory.
  private var base: UnsafeMutableRawPointer?
  private var usesPhysicalAddresses = false
  private var nextIOVA = UInt64(pageSize)
  // Both weak: a device that is closed takes its mappings with it, and a block lives as long as its parts.
  private var mappers: [() -> (any DMAMapper)?] = []
  private var blocks: [() -> DMABlock?] = []

  /// An empty domain. No memory is taken before the first mempool or ring.
  public init() {}

  deinit {
    if let base = unsafe base { unsafe munmap(base, space) }
  }

  /// The largest piece of memory whose IOVAs are contiguous, in bytes.
  public var largestBlock: Int { usesPhysicalAddresses ? Self.pageSize : Self.counted / 4 }

  private var space: Int { usesPhysicalAddresses ? Self.physical : Self.counted }

  /// Lets a device see all memory of the domain, now and later.
  public func attach(_ mapper: any DMAMapper) throws(DeviceError) {
    for block in blocks {
      if let block = block() { try map(block, for: mapper) }
    }
    mappers.append { [weak mapper] in mapper }
  }

  /// Makes all IOVAs physical addresses, for a card without an IOMMU.
  public func usePhysicalAddresses() throws(DeviceError) {
    if usesPhysicalAddresses { return }
    guard unsafe base == nil else {
      throw .refused(
        "Open a card without IOMMU", found: "memory was already made for other cards",
        advice: "Open every card of the domain before its mempools and queues.")
    }
    usesPhysicalAddresses = true
  }

  /// Memory for the devices of this domain, zeroed and contiguous.
  ///
  /// - Parameters:
  ///   - size: The length in bytes, at most `largestBlock`.
  ///   - alignment: A power of two; descriptor rings want 128.
  /// - Throws: `DeviceError.tooFewHugePages`, or what the kernel or a mapper says.
  public func allocate(_ size: Int, alignment: Int = 128) throws(DeviceError) -> DMAMemory {
    precondition(size > 0 && size <= largestBlock, "memory larger than a block")
    var block = blocks.last.flatMap { $0() }
    var start = (block?.used ?? 0).roundedUp(to: alignment)
    if start + size > block?.size ?? 0 {
      block = try makeBlock(size.roundedUp(to: Self.pageSize))
      start = 0
    }
    guard let block else { fatalError("a block was just made") }
    block.used = start + size
    // SAFETY: start + size is inside the block, which the result keeps alive.
    return unsafe DMAMemory(
      base: block.base + start, iova: block.iova + UInt64(start), size: size, block: block)
  }

  private func makeBlock(_ size: Int) throws(DeviceError) -> DMABlock {
    if unsafe base == nil { try reserve() }
    guard let base = unsafe base else { fatalError("address space was just reserved") }
    let kind = IXY_MEMFD_CLOEXEC | IXY_MEMFD_HUGE_2MB
    var file = FileDescriptor(owning: unsafe ixy_memfd("ixy", kind))
    let free = freeHugePages()
    if file.number < 0 || free < size / Self.pageSize || ftruncate(file.number, size) != 0 {
      // Pages of 4 KiB may move and be swapped: only where something translates addresses.
      if usesPhysicalAddresses {
        throw .tooFewHugePages(needed: size / Self.pageSize, free: free)
      }
      file = FileDescriptor(owning: unsafe ixy_memfd("ixy", IXY_MEMFD_CLOEXEC))
      guard file.number >= 0, ftruncate(file.number, size) == 0 else {
        throw .lastError("Make \(size) bytes of DMA memory")
      }
    }
    let iova = try usesPhysicalAddresses ? physicalAddress(of: file) : nextFreeIOVA(size)
    let block = try unsafe DMABlock(
      file: file, base: base + Int(iova), iova: iova, size: size, domain: self)
    for mapper in mappers.compactMap({ $0() }) { try map(block, for: mapper) }
    blocks.removeAll { $0() == nil }
    blocks.append { [weak block] in block }
    return block
  }

  private func reserve() throws(DeviceError) {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | Int32(MAP_NORESERVE)
    let found = unsafe mmap(nil, space + Self.pageSize, PROT_NONE, flags, -1, 0)
    guard let found = unsafe found, unsafe found != MAP_FAILED else {
      throw .lastError("Reserve address space", advice: "Is there a limit (ulimit -v)?")
    }
    // Huge pages want their virtual addresses aligned, too.
    unsafe base = found.alignedUp(toMultipleOf: Self.pageSize)
  }

  private func map(_ block: DMABlock, for mapper: any DMAMapper) throws(DeviceError) {
    try unsafe mapper.map(
      file: block.file.number, offset: 0, base: block.base, iova: block.iova, size: block.size)
  }

  /// Called by a block that goes.
  func release(iova: UInt64, size: Int) {
    for mapper in mappers { mapper()?.unmap(iova: iova, size: size) }
  }

  /// The lowest IOVA not yet used from which all mappers can map `size` bytes.
  private func nextFreeIOVA(_ size: Int) throws(DeviceError) -> UInt64 {
    var start = nextIOVA
    while start + UInt64(size) <= UInt64(Self.counted) {
      let last = start + UInt64(size) - 1
      let fits = mappers.compactMap({ $0() }).allSatisfy { mapper in
        mapper.usableIOVAs.contains { $0.contains(start) && $0.contains(last) }
      }
      if fits {
        nextIOVA = last + 1
        return start
      }
      start += UInt64(Self.pageSize)
    }
    throw .refused(
      "Map \(size) bytes for DMA", found: "the IOMMU has no room below 64 GiB for it",
      advice: "Use fewer or smaller mempools.")
  }

  /// Where the one huge page of `file` is, by the kernel's page map.
  private func physicalAddress(of file: borrowing FileDescriptor) throws(DeviceError) -> UInt64 {
    let (size, flags) = (Self.pageSize, MAP_SHARED | Int32(MAP_POPULATE))
    let page = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, flags, file.number, 0)
    guard let page = unsafe page, unsafe page != MAP_FAILED else {
      throw .lastError("Map a huge page")
    }
    defer { unsafe munmap(page, size) }
    let map = try FileDescriptor(path: "/proc/self/pagemap", O_RDONLY)
    var entry: UInt64 = 0
    // One 64-bit entry for each 4 KiB page: bit 63 present, bits 54:0 the frame's number.
    let read = unsafe pread(map.number, &entry, 8, Int(bitPattern: page) / 4096 * 8)
    let frame = entry & (1 << 55 - 1)
    guard read == 8, entry >> 63 == 1, frame != 0, frame * 4096 < UInt64(Self.physical) else {
      throw .refused(
        "Ask /proc/self/pagemap for a physical address", found: "it gave none",
        advice: "Run as root, or bind the card to vfio-pci.")
    }
    return frame * 4096
  }
}

/// Huge pages of 2 MiB that nobody uses.
func freeHugePages() -> Int {
  let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
  let free = contents(of: path + "free_hugepages").flatMap { Int($0) } ?? 0
  let promised = contents(of: path + "resv_hugepages").flatMap { Int($0) } ?? 0
  return max(0, free - promised)
}

extension Int {
  /// The next multiple of `step`, a power of two.
  func roundedUp(to step: Int) -> Int { (self + step - 1) & ~(step - 1) }
}
