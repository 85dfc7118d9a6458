import Emulation
import Glibc
import Ixy

/// The memory that one client has mapped, in the model's DMA table.
///
/// Memory that comes with a file is mapped here; without one (QEMU's firmware) the range is only
/// remembered, and an access by the device is refused as one outside all mappings is.
@safe final class DMAMappings {
  private struct Range {
    var iova: UInt64
    /// The last byte, so that a range may end at the end of the address space.
    var last: UInt64
    var hasMemory: Bool
    var size: Int { Int(last - iova) + 1 }
  }

  /// The most mappings of one client; said in our capabilities.
  ///
  /// The kernel gives a process 65,530, of which several clients and the process itself need some.
  static let maxCount = 16384
  /// The most bytes of one client: a few of them must fit into the address space of a process.
  private static let maxBytes = 4 << 40
  private static let pageSize: UInt64 = 4096
  /// Flags of DMA_MAP.
  private static let (read, write): (UInt32, UInt32) = (1, 2)
  /// Flags of DMA_UNMAP.
  private static let (dirtyBitmap, all): (UInt32, UInt32) = (1, 2)

  private let table: DMATable
  /// In ascending order, without overlap.
  private var ranges: [Range] = []
  /// The sizes of all ranges that have memory.
  private var bytes = 0

  init(_ table: DMATable) { self.table = table }

  deinit { removeAll() }

  var count: Int { ranges.count }

  /// Obeys DMA_MAP.
  func map(_ payload: [UInt8], _ files: ReceivedFiles) throws(Refusal) {
    var fields = Fields(payload)
    let argsz = try fields.take(UInt32.self)
    let flags = try fields.take(UInt32.self)
    let offset = try fields.take(UInt64.self)
    let iova = try fields.take(UInt64.self)
    let size = try fields.take(UInt64.self)
    guard argsz >= 32, files.count <= 1 else { throw Refusal("its size or descriptors are wrong") }
    guard flags & ~(Self.read | Self.write) == 0, flags != 0 else {
      throw Refusal("flags \(String(flags, radix: 16)) are unknown")
    }
    guard size > 0, size <= Int64.max, iova.addingReportingOverflow(size - 1).overflow == false
    else { throw Refusal("\(size) bytes at \(String(iova, radix: 16)) are no range") }
    let place = firstRange(endingAtOrAfter: iova)
    var range = Range(iova: iova, last: iova + (size - 1), hasMemory: false)
    guard place == ranges.count || ranges[place].iova > range.last else {
      throw Refusal(EEXIST, "\(String(iova, radix: 16)) is mapped already")
    }
    guard ranges.count < Self.maxCount else { throw Refusal(ENOSPC, "too much is mapped") }
    if let file = files.takeFirst() {
      guard range.size <= Self.maxBytes - bytes else {
        throw Refusal(ENOSPC, "too much is mapped")
      }
      try map(file, offset: offset, range, isWritable: flags & Self.write != 0)
      range.hasMemory = true
      bytes += range.size
    }
    ranges.insert(range, at: place)
  }

  private func map(
    _ file: borrowing FileDescriptor, offset: UInt64, _ range: Range, isWritable: Bool
  ) throws(Refusal) {
    let size = range.size
    try Self.check(file, offset: offset, size: size)
    let protection = isWritable ? PROT_READ | PROT_WRITE : PROT_READ
    let base = unsafe mmap(nil, size, protection, MAP_SHARED, file.number, Int(offset))
    guard let base = unsafe base, unsafe base != MAP_FAILED else {
      throw Refusal(errno, "its memory cannot be mapped")
    }
    do {
      try unsafe table.map(iova: range.iova, size: size, base: base, isWritable: isWritable) {
        unsafe munmap(base, size)
      }
    } catch { throw Refusal(EEXIST, "\(error)") }
  }

  /// Whether a file is memory, and long enough: behind its end every access would be a SIGBUS.
  private static func check(_ file: borrowing FileDescriptor, offset: UInt64, size: Int)
    throws(Refusal)
  {
    var status = stat()
    guard unsafe fstat(file.number, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
      isMemory(file)
    else { throw Refusal("its descriptor is not memory (memfd, tmpfs or hugetlbfs)") }
    let (end, wraps) = offset.addingReportingOverflow(UInt64(size))
    guard offset % pageSize == 0, !wraps, end <= UInt64(max(status.st_size, 0)) else {
      throw Refusal("\(size) bytes from \(offset) are not in its file of \(status.st_size) bytes")
    }
  }

  /// Only memory knows seals; a file of some user's file system could stall every access for ever.
  private static func isMemory(_ file: borrowing FileDescriptor) -> Bool {
    let getSeals: Int32 = 1034  // F_GET_SEALS, hidden from the importer
    return fcntl(file.number, getSeals) >= 0
  }

  /// Obeys DMA_UNMAP, as the kernel's type 1 does: all mappings inside the range go.
  ///
  /// QEMU unmaps huge ranges in which it has never mapped anything: that is a success. A range that would
  /// cut a mapping in two is refused.
  func unmap(_ payload: [UInt8]) throws(Refusal) {
    var fields = Fields(payload)
    let argsz = try fields.take(UInt32.self)
    let flags = try fields.take(UInt32.self)
    let iova = try fields.take(UInt64.self)
    let size = try fields.take(UInt64.self)
    guard argsz >= 24 else { throw Refusal("its size is wrong") }
    guard flags & Self.dirtyBitmap == 0 else { throw Refusal("dirty pages are not recorded") }
    guard flags & ~Self.all == 0 else {
      throw Refusal("flags \(String(flags, radix: 16)) are unknown")
    }
    if flags & Self.all != 0 {
      guard iova == 0, size == 0 else { throw Refusal("all of a part is not everything") }
      return removeAll()
    }
    guard size > 0, iova.addingReportingOverflow(size - 1).overflow == false else {
      throw Refusal("\(size) bytes at \(String(iova, radix: 16)) are no range")
    }
    try remove(iova...(iova + (size - 1)))
  }

  private func remove(_ gone: ClosedRange<UInt64>) throws(Refusal) {
    let start = firstRange(endingAtOrAfter: gone.lowerBound)
    var end = start
    while end < ranges.count, ranges[end].iova <= gone.upperBound { end += 1 }
    let inside = start..<end
    guard let first = ranges[inside].first, let last = ranges[inside].last else { return }
    guard first.iova >= gone.lowerBound, last.last <= gone.upperBound else {
      throw Refusal("it would cut a mapping in two")
    }
    for range in ranges[inside] { drop(range) }
    ranges.removeSubrange(inside)
  }

  private func drop(_ range: Range) {
    guard range.hasMemory else { return }
    table.unmap(iova: range.iova, size: range.size)
    bytes -= range.size
  }

  /// Takes all mappings away: the client is gone, or asks for it.
  func removeAll() {
    for range in ranges { drop(range) }
    ranges = []
  }

  /// The place of the first range that does not end before `iova`.
  private func firstRange(endingAtOrAfter iova: UInt64) -> Int {
    var (low, high) = (0, ranges.count)
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].last < iova { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
