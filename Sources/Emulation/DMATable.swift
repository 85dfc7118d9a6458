import Ixy

/// The memory that an emulated device may reach, as an IOMMU would have it.
///
/// An access outside it, or a write to what is read-only, is refused, counted and shown.
@safe public final class DMATable: DMAMapper {
  @safe private struct Entry {
    var iova: UInt64
    var size: UInt64
    var base: UnsafeMutableRawPointer
    var isWritable: Bool
    var release: (() -> Void)?
  }

  /// In ascending order of IOVA, without overlap.
  private var entries: [Entry] = []
  private var lastHit = 0

  /// The number of accesses that were refused.
  public private(set) var violations: UInt64 = 0
  /// Called with the address and size of an access that is refused.
  public var onViolation: ((_ iova: UInt64, _ size: Int, _ isWrite: Bool) -> Void)?

  /// A table with nothing in it.
  public init() {}

  deinit { unmapAll() }

  /// The number of mappings.
  public var count: Int { entries.count }

  /// All 64 bits: a table translates anything.
  public var usableIOVAs: [ClosedRange<UInt64>] { [0 ... .max] }

  /// Maps memory of this process; its owner keeps it until `unmap`.
  public func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) {
    try unsafe map(iova: iova, size: size, base: base, isWritable: true)
  }

  /// Maps `size` bytes at `base` to `iova`.
  ///
  /// - Parameter release: Called when the mapping goes, and when it is refused.
  /// - Throws: `DeviceError.refused` when the range is empty, wraps or overlaps another.
  public func map(
    iova: UInt64, size: Int, base: UnsafeMutableRawPointer, isWritable: Bool,
    release: (() -> Void)? = nil
  ) throws(DeviceError) {
    let place = entries.firstIndex { $0.iova > iova } ?? entries.count
    let (end, wraps) = iova.addingReportingOverflow(UInt64(max(size, 0)))
    let hitsLast = place > 0 && iova - entries[place - 1].iova < entries[place - 1].size
    let hitsNext = place < entries.count && end > entries[place].iova
    guard size > 0, !wraps, !hitsLast, !hitsNext else {
      release?()
      throw .refused(
        "Map \(size) bytes at IOVA \(String(iova, radix: 16))",
        found: size <= 0 || wraps ? "that is no range" : "it overlaps another mapping",
        advice: "")
    }
    unsafe entries.insert(
      Entry(
        iova: iova, size: UInt64(size), base: base, isWritable: isWritable, release: release),
      at: place)
    lastHit = place
  }

  /// Takes a mapping away, which must be one that was made with the same range.
  public func unmap(iova: UInt64, size: Int) { _ = remove(iova: iova, size: size) }

  /// Takes a mapping away; false when there is none with just this range.
  public func remove(iova: UInt64, size: Int) -> Bool {
    guard
      let place = entries.firstIndex(where: { $0.iova == iova && $0.size == size })
    else { return false }
    lastHit = 0
    let entry = entries.remove(at: place)
    entry.release?()
    return true
  }

  /// Takes every mapping away.
  public func unmapAll() {
    let old = entries
    entries = []
    lastHit = 0
    for entry in old { entry.release?() }
  }

  /// Where the device finds `count` bytes from `iova`, if all of them are in one mapping.
  ///
  /// - Returns: nil when they are not, or are read-only for a write; that is counted.
  public func pointer(to iova: UInt64, count: Int, forWriting: Bool)
    -> UnsafeMutableRawPointer?
  {
    if let (pointer, room) = unsafe find(iova, forWriting: forWriting), room >= count {
      return unsafe pointer
    }
    refuse(iova, count, forWriting)
    return nil
  }

  /// Copies `count` bytes of the driver's memory to `target`, over as many mappings as they take.
  ///
  /// - Returns: False, with nothing sensible in `target`, when not all of them are mapped.
  public func read(_ iova: UInt64, into target: UnsafeMutableRawPointer, count: Int) -> Bool {
    unsafe eachPart(iova, count, forWriting: false) { pointer, offset, size in
      unsafe (target + offset).copyMemory(from: pointer, byteCount: size)
    }
  }

  /// Copies `count` bytes from `source` to the driver's memory, over as many mappings as they take.
  ///
  /// - Returns: False when not all of them are mapped and writable; those before may be written.
  public func write(_ iova: UInt64, from source: UnsafeRawPointer, count: Int) -> Bool {
    unsafe eachPart(iova, count, forWriting: true) { pointer, offset, size in
      unsafe pointer.copyMemory(from: source + offset, byteCount: size)
    }
  }

  @inline(__always)
  private func eachPart(
    _ iova: UInt64, _ count: Int, forWriting: Bool,
    _ body: (UnsafeMutableRawPointer, _ offset: Int, _ size: Int) -> Void
  ) -> Bool {
    var done = 0
    while done < count {
      let at = iova &+ UInt64(done)
      guard let (pointer, room) = unsafe find(at, forWriting: forWriting) else {
        refuse(at, count - done, forWriting)
        return false
      }
      let size = min(room, count - done)
      unsafe body(pointer, done, size)
      done += size
    }
    return true
  }

  @inline(__always)
  private func find(_ iova: UInt64, forWriting: Bool)
    -> (pointer: UnsafeMutableRawPointer, room: Int)?
  {
    // Most accesses hit the mapping that the last one hit.
    if lastHit >= entries.count || iova &- entries[lastHit].iova >= entries[lastHit].size {
      guard search(iova) else { return nil }
    }
    let entry = entries[lastHit]
    if forWriting && !entry.isWritable { return nil }
    let offset = iova &- entry.iova
    return unsafe (entry.base + Int(offset), Int(entry.size &- offset))
  }

  private func search(_ iova: UInt64) -> Bool {
    var (low, high) = (0, entries.count)
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].iova <= iova { low = middle + 1 } else { high = middle }
    }
    guard low > 0, iova - entries[low - 1].iova < entries[low - 1].size else { return false }
    lastHit = low - 1
    return true
  }

  @inline(never)
  private func refuse(_ iova: UInt64, _ count: Int, _ isWrite: Bool) {
    violations += 1
    onViolation?(iova, count, isWrite)
  }
}
