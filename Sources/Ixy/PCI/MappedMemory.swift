import CIxy
import Glibc
import Synchronization

/// Gives a device access to memory: an IOMMU, a vfio-user socket or an emulated card.
public protocol DMAMapper: AnyObject {
  /// The IOVAs that it can map, in ascending order.
  var usableIOVAs: [ClosedRange<UInt64>] { get }
  /// Lets the device see `size` bytes of `file` from `offset`, in our memory at `base`, at `iova`.
  func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError)
  /// Takes one mapping away again.
  func unmap(iova: UInt64, size: Int)
  /// Whether another process gets the memory.
  ///
  /// It can free the pages; a card with their physical addresses would go on with them, whosever they are then.
  var sharesMemory: Bool { get }
}

extension DMAMapper {
  /// That the memory stays in this process.
  public var sharesMemory: Bool { false }
}

extension DMADomain {
  /// Lets a device see all memory of the domain, now and later, as long as `mapper` lives.
  ///
  /// - Throws: What the mapper says, or `DeviceError.refused` when it shares memory with another process and a card of
  ///   the domain has physical addresses.
  public func attach(_ mapper: any DMAMapper) throws(DeviceError) {
    lock._unsafeLock()
    defer { lock._unsafeUnlock() }
    let list = mappers as? MapperList ?? MapperList()
    // A card that is opened once more sees it already.
    if list.mappers.contains(where: { $0 === mapper }) { return }
    if mapper.sharesMemory, addressing is PhysicalAddresses { throw Self.mixture }
    mappers = list
    mapBlock = { block throws(DeviceError) in try list.map(block) }
    unmapBlock = { list.unmap($0) }
    freeIOVAs = { list.free($0) }
    checkPhysicalAddresses = { () throws(DeviceError) in
      if list.mappers.contains(where: { $0.sharesMemory }) { throw Self.mixture }
    }
    if addressing == nil { addressing = CountedAddresses(list) }
    for block in blocks {
      if let block = block() { try MapperList.map(block, by: mapper) }
    }
    list.add(mapper)
  }

  private static var mixture: DeviceError {
    .refused(
      "Share memory with another process",
      found:
        "a card without an IOMMU has its physical addresses, and would go on with pages that were freed",
      advice: "Bind that card to vfio-pci behind an IOMMU, or use a domain of its own.")
  }
}

/// The mappers of a domain, and where they have mapped its blocks; weak, because a device that is closed takes its
/// mappings with it.
///
/// Threads that drop the last part of a block unmap it: one at a time.
final class MapperList {
  private let lock = Mutex(())
  private var references: [() -> (any DMAMapper)?] = []
  private var ranges: [ClosedRange<UInt64>] = []

  var mappers: [any DMAMapper] { references.compactMap { $0() } }

  func add(_ mapper: any DMAMapper) { references.append { [weak mapper] in mapper } }

  /// The IOVAs that blocks have, in ascending order.
  var taken: [ClosedRange<UInt64>] { lock.withLock { _ in ranges } }

  func map(_ block: DMABlock) throws(DeviceError) {
    lock._unsafeLock()
    defer { lock._unsafeUnlock() }
    // Also when a mapper refuses it: the block frees what it has.
    let place = ranges.firstIndex { $0.lowerBound > block.iova } ?? ranges.endIndex
    ranges.insert(block.iova...(block.iova + UInt64(block.size) - 1), at: place)
    for mapper in mappers { try Self.map(block, by: mapper) }
  }

  func unmap(_ block: DMABlock) {
    lock._unsafeLock()
    defer { lock._unsafeUnlock() }
    for mapper in mappers { mapper.unmap(iova: block.iova, size: block.size) }
  }

  func free(_ block: DMABlock) {
    lock.withLock { _ in ranges.removeAll { $0.lowerBound == block.iova } }
  }

  static func map(_ block: DMABlock, by mapper: any DMAMapper) throws(DeviceError) {
    try unsafe mapper.map(
      file: block.file.number, offset: 0, base: block.base, iova: block.iova, size: block.size)
  }
}

/// IOVAs from a low counter, for devices behind an IOMMU or what stands in for one.
///
/// The memory lies on huge pages when enough are free, else on pages of 4 KiB: something translates.
final class CountedAddresses: DMAAddressing {
  // Valgrind has no room for much more.
  let space = 16 << 30
  let largestBlock = 4 << 30
  private let list: MapperList

  init(_ list: MapperList) { self.list = list }

  func makeFile(_ size: Int) throws(DeviceError) -> FileDescriptor {
    if let file = try? FileDescriptor(sealedMemory: size, "ixy", IXY_MEMFD_HUGE_2MB),
      Self.reservePages(of: file, size)
    {
      return file
    }
    return try FileDescriptor(sealedMemory: size, "ixy")
  }

  /// Whether enough huge pages are free for a file, which are its own from then on, wherever it is mapped.
  private static func reservePages(of file: borrowing FileDescriptor, _ size: Int) -> Bool {
    // A shared mapping reserves the pages for the file, until the file goes; it takes none yet.
    let pages = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0)
    guard let pages = unsafe pages, unsafe pages != MAP_FAILED else { return false }
    unsafe munmap(pages, size)
    return true
  }

  /// The lowest IOVA from which the file overlaps no other and all mappers can map it.
  func place(_ file: borrowing FileDescriptor, size: Int) throws(DeviceError) -> UInt64 {
    let (size, end) = (UInt64(size), UInt64(space))
    let usable = list.mappers.map(\.usableIOVAs)
    var start = UInt64(DMADomain.pageSize)
    for next in list.taken + [end...end] {
      while start + size <= next.lowerBound {
        let last = start + size - 1
        let fits = usable.allSatisfy { ranges in
          ranges.contains { $0.contains(start) && $0.contains(last) }
        }
        if fits { return start }
        start += UInt64(DMADomain.pageSize)
      }
      start = next.upperBound + 1
    }
    throw .refused(
      "Map \(size) bytes for DMA", found: "there is no room below 16 GiB that every card can reach",
      advice: "Use fewer or smaller mempools.")
  }
}
