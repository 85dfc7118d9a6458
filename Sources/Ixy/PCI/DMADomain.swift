import CIxy
import Glibc
import Synchronization

/// The devices that share packets, and the memory that all of them can reach.
///
/// A forwarder opens both its cards in one domain. IOVAs come from a low counter or, when a card of the
/// domain is on sysfs, they are physical addresses. Either way every byte lies at one constant + IOVA, so
/// that the packet path adds and looks nothing up. Open all its cards before threads share it: from then on
/// any of them may take memory, and give it back.
@safe public final class DMADomain: @unchecked Sendable {
  /// The size of a huge page, and the least that a block of memory takes.
  static let pageSize = 2 << 20

  /// Where IOVAs come from; nil until the first card is opened.
  var addressing: (any DMAAddressing)?
  /// Puts the memory of a new file where it shall be before anything is written there: on a NUMA node.
  var placeFile: ((borrowing FileDescriptor, Int) throws(DeviceError) -> Void)?
  /// Where IOVA 0 would be in our memory; nil until there is memory.
  private(set) var base: UnsafeMutableRawPointer?
  /// Where all that is reserved begins: a little before the base.
  private var reservation: UnsafeMutableRawPointer?
  /// Gives devices access to a new block, and takes it away: those that do not see all memory.
  var mapBlock: ((DMABlock) throws(DeviceError) -> Void)?
  var unmapBlock: ((DMABlock) -> Void)?
  /// A block is gone, and another may have its IOVAs.
  var freeIOVAs: ((DMABlock) -> Void)?
  /// Refuses physical addresses where another process has the memory.
  var checkPhysicalAddresses: (() throws(DeviceError) -> Void)?
  /// Who those call; nil while all devices see all memory.
  var mappers: AnyObject?
  // Weak: a block lives as long as its parts.
  private(set) var blocks: [() -> DMABlock?] = []
  /// Held while a block is made or a card attached.
  let lock = Mutex(())

  /// An empty domain; no memory is taken before the first mempool or ring.
  public init() {}

  deinit {
    // All of it: what stays would keep the next domain from the hole.
    let size = (addressing?.space ?? 0) + Self.pageSize
    if let reservation = unsafe reservation { unsafe munmap(reservation, size) }
  }

  /// Makes all IOVAs physical addresses, for a card without an IOMMU; once there is memory, that traps.
  ///
  /// - Throws: `DeviceError.refused` when a card of the domain is in another process.
  public func usePhysicalAddresses() throws(DeviceError) {
    if addressing is PhysicalAddresses { return }
    precondition(unsafe base == nil, "open all cards of a domain before its mempools")
    try checkPhysicalAddresses?()
    addressing = PhysicalAddresses()
  }

  /// The largest piece of memory whose IOVAs are contiguous, in bytes.
  public var largestBlock: Int { addressing?.largestBlock ?? Self.pageSize }

  /// Memory for the devices of this domain, zeroed and contiguous; before a card of it is open, that traps.
  ///
  /// - Parameters:
  ///   - size: The length in bytes, at most `largestBlock`.
  ///   - alignment: A power of two; descriptor rings want 128.
  /// - Returns: The memory, which stays until it is dropped.
  /// - Throws: `DeviceError.tooFewHugePages`, or what the kernel or a mapper says.
  public func allocate(_ size: Int, alignment: Int = 128) throws(DeviceError) -> DMAMemory {
    precondition(size > 0 && size <= largestBlock, "memory larger than a block")
    lock._unsafeLock()
    defer { lock._unsafeUnlock() }
    if let memory = blocks.last?()?.take(size, alignment) { return memory }
    let block = try makeBlock(size.roundedUp(to: Self.pageSize))
    guard let memory = block.take(size, alignment) else { fatalError("a block has its own size") }
    return memory
  }

  private func makeBlock(_ size: Int) throws(DeviceError) -> DMABlock {
    guard let addressing else { preconditionFailure("open a card of the domain first") }
    if unsafe base == nil { try reserve(addressing.space) }
    let file = try addressing.makeFile(size)
    try placeFile?(file, size)
    let iova = try addressing.place(file, size: size)
    let block = try DMABlock(file: file, iova: iova, size: size, domain: self)
    try mapBlock?(block)
    blocks.removeAll { $0() == nil }
    blocks.append { [weak block] in block }
    return block
  }

  /// Keeps address space free, for memory to be mapped where its IOVA says.
  private func reserve(_ size: Int) throws(DeviceError) {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | Int32(MAP_NORESERVE)
    let space = unsafe mmap(nil, size + Self.pageSize, PROT_NONE, flags, -1, 0)
    guard let space = unsafe space, unsafe space != MAP_FAILED else {
      throw .lastError("Reserve address space", advice: "Is there a limit (ulimit -v)?")
    }
    unsafe reservation = space
    // Huge pages want their virtual addresses aligned, too.
    unsafe base = space.alignedUp(toMultipleOf: Self.pageSize)
  }
}

/// How a domain gets its memory, and at which IOVAs.
protocol DMAAddressing: AnyObject {
  /// All IOVAs are below this.
  var space: Int { get }
  /// The largest piece whose IOVAs are contiguous, in bytes.
  var largestBlock: Int { get }
  /// A file of memory; `size` is a multiple of a huge page.
  func makeFile(_ size: Int) throws(DeviceError) -> FileDescriptor
  /// The IOVA for a file.
  func place(_ file: borrowing FileDescriptor, size: Int) throws(DeviceError) -> UInt64
}

/// Physical addresses as IOVAs: one huge page at a time, which the kernel does not move.
final class PhysicalAddresses: DMAAddressing {
  let space = 1 << 44
  let largestBlock = DMADomain.pageSize

  func makeFile(_ size: Int) throws(DeviceError) -> FileDescriptor {
    let file = FileDescriptor(
      owning: unsafe ixy_memfd("ixy", IXY_MEMFD_CLOEXEC | IXY_MEMFD_HUGE_2MB))
    guard file.number >= 0, ftruncate(file.number, size) == 0 else {
      throw .lastError("Make a huge page", advice: "Does the kernel have them (hugetlbfs)?")
    }
    return file
  }

  /// Where the one page of the file is, by the kernel's page map.
  func place(_ file: borrowing FileDescriptor, size: Int) throws(DeviceError) -> UInt64 {
    let flags = MAP_SHARED | Int32(MAP_POPULATE)
    let page = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, flags, file.number, 0)
    guard let page = unsafe page, unsafe page != MAP_FAILED else {
      throw .tooFewHugePages(needed: 1, free: 0)
    }
    defer { unsafe munmap(page, size) }
    let map = try FileDescriptor(path: "/proc/self/pagemap", O_RDONLY)
    var entry: UInt64 = 0
    // One 64-bit entry for each 4 KiB page: bit 63 present, bits 54:0 the frame's number.
    let read = unsafe pread(map.number, &entry, 8, Int(bitPattern: page) / 4096 * 8)
    let frame = Int(entry & (1 << 55 - 1))
    guard read == 8, entry >> 63 == 1, frame != 0, frame * 4096 < space else {
      throw .refused(
        "Ask /proc/self/pagemap for a physical address", found: "it gave none",
        advice: "Run as root, or bind the card to vfio-pci.")
    }
    return UInt64(frame * 4096)
  }
}
