import Emulation
import Glibc
import Ixy
import Synchronization

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

  /// The mappings of a process, of which all of its clients together may have `limit`.
  ///
  /// The kernel gives a process 65,530 (vm.max_map_count), of which it needs some itself: also to mend those that
  /// a client truncates, up to 20,000 before the end of that client.
  final class Budget: Sendable {
    static let process = Budget(limit: 2 * DMAMappings.maxCount)
    private let limit: Int
    private let used = Atomic(0)

    init(limit: Int) { self.limit = limit }

    func take() throws(Refusal) {
      guard used.add(1, ordering: .relaxed).newValue <= limit else {
        give()
        throw Refusal(ENOSPC, "all clients together have mapped too much")
      }
    }

    func give() { used.subtract(1, ordering: .relaxed) }
  }

  /// The most mappings of one client; said in our capabilities.
  static let maxCount = 16384
  /// The most bytes of one client: a few of them must fit into the address space of a process.
  private static let maxBytes = 4 << 40
  /// Flags of DMA_MAP.
  private static let (read, write): (UInt32, UInt32) = (1, 2)
  /// Flags of DMA_UNMAP.
  private static let (dirtyBitmap, all): (UInt32, UInt32) = (1, 2)

  private let table: DMATable
  private let budget: Budget
  /// In ascending order, without overlap.
  private var ranges: [Range] = []
  /// The sizes of all ranges that have memory.
  private var bytes = 0

  init(_ table: DMATable, budget: Budget = .process) { (self.table, self.budget) = (table, budget) }

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
      try budget.take()
      do throws(Refusal) {
        try map(file, offset: offset, range, isWritable: flags & Self.write != 0)
      } catch {
        budget.give()
        throw error
      }
      range.hasMemory = true
      bytes += range.size
    }
    ranges.insert(range, at: place)
  }

  private func map(
    _ file: borrowing FileDescriptor, offset: UInt64, _ range: Range, isWritable: Bool
  ) throws(Refusal) {
    let size = range.size
    try PeerMemory.check(file, offset: offset, size: size, takesHugePages: true)
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
    dropAll(ranges[inside])
    ranges.removeSubrange(inside)
  }

  /// The last first, which is the cheapest order for the table.
  private func dropAll(_ gone: ArraySlice<Range>) {
    for range in gone.reversed() where range.hasMemory {
      table.unmap(iova: range.iova, size: range.size)
      budget.give()
      bytes -= range.size
    }
  }

  /// Takes all mappings away: the client is gone, or asks for it.
  func removeAll() {
    dropAll(ranges[...])
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
