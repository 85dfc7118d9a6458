import Ixy

/// One mapping of a `DMATable`, to translate many addresses without a call.
///
/// Valid as long as the table's `generation` is the one that it was taken at.
@safe struct DMAWindow {
  // SAFETY: who maps memory keeps it at `base`, `size` bytes long, until it is unmapped; then
  // `generation` changes, and whoever has kept a window forgets it. No pointer is given for less
  // than the bytes that are asked for.
  var iova: UInt64 = 0
  var size: UInt64 = 0
  /// Never used as long as `size` is 0.
  var base = unsafe UnsafeMutableRawPointer(bitPattern: 1).unsafelyUnwrapped
  var isWritable = false

  /// Where the byte at `iova` is; nil when it is not in this mapping.
  @inline(__always)
  func pointer(to iova: UInt64) -> UnsafeMutableRawPointer? {
    let offset = iova &- self.iova
    guard offset < size else { return nil }
    return unsafe base.advanced(by: Int(truncatingIfNeeded: offset))
  }

  /// The same without its last `count` bytes.
  func shortened(by count: Int) -> DMAWindow {
    var shorter = self
    shorter.size -= min(size, UInt64(max(count, 0)))
    return shorter
  }

  /// Where `count` bytes from `iova` are; nil when not all of them are in this mapping.
  @inline(__always)
  func pointer(to iova: UInt64, count: Int) -> UnsafeMutableRawPointer? {
    let offset = iova &- self.iova
    guard offset < size, size &- offset >= UInt64(truncatingIfNeeded: count) else { return nil }
    return unsafe base.advanced(by: Int(truncatingIfNeeded: offset))
  }
}

/// The memory that an emulated device may reach, as an IOMMU would have it.
///
/// An access outside it, or a write to what is read-only, is refused, counted and shown.
@safe public final class DMATable: DMAMapper {
  // SAFETY: as for `DMAWindow`; a copy goes on in the next window where one ends.
  /// In ascending order of IOVA, without overlap.
  private var windows: [DMAWindow] = []
  /// What to call when a mapping goes: one for each window.
  private var releases: [(() -> Void)?] = []
  /// The window that the last access hit; most hit it again.
  private var last = DMAWindow()

  /// Changes whenever a mapping comes or goes: pointers that were kept are then void.
  private(set) var generation: UInt64 = 1
  /// The number of accesses that were refused.
  public private(set) var violations: UInt64 = 0
  /// Called with the address and size of an access that is refused.
  ///
  /// It must leave the table as it is.
  public var onViolation: ((_ iova: UInt64, _ size: Int, _ isWrite: Bool) -> Void)?

  /// A table with nothing in it.
  public init() {}

  deinit { unmapAll() }

  /// The number of mappings.
  public var count: Int { windows.count }

  /// All 64 bits: a table translates anything.
  public var usableIOVAs: [ClosedRange<UInt64>] { [0 ... .max] }

  /// Maps memory of this process; its owner keeps it until `unmap`.
  public func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) {
    unsafe try map(iova: iova, size: size, base: base, isWritable: true)
  }

  /// Maps `size` bytes at `base` to `iova`.
  ///
  /// - Parameters:
  ///   - iova: Where the device sees it.
  ///   - size: Its length in bytes.
  ///   - base: Where it is in this process.
  ///   - isWritable: Whether the device may write to it.
  ///   - release: Called when the mapping goes, and when it is refused.
  /// - Throws: `DeviceError.refused` when the range is empty, wraps or overlaps another.
  public func map(
    iova: UInt64, size: Int, base: UnsafeMutableRawPointer, isWritable: Bool,
    release: (() -> Void)? = nil
  ) throws(DeviceError) {
    let place = firstIndex(above: iova)
    // The last byte, as the end of a range may be that of all addresses.
    let (last, wraps) = iova.addingReportingOverflow(UInt64(max(size, 1)) - 1)
    let hitsLast = place > 0 && iova - windows[place - 1].iova < windows[place - 1].size
    let hitsNext = place < windows.count && last >= windows[place].iova
    guard size > 0, !wraps, !hitsLast, !hitsNext else {
      release?()
      throw .refused(
        "Map \(size) bytes at IOVA \(String(iova, radix: 16))",
        found: size <= 0 || wraps ? "that is no range" : "it overlaps another mapping",
        advice: "")
    }
    let window = unsafe DMAWindow(
      iova: iova, size: UInt64(size), base: base, isWritable: isWritable)
    windows.insert(window, at: place)
    releases.insert(release, at: place)
    generation += 1
  }

  /// Takes a mapping away, which must be one that was made with the same range.
  public func unmap(iova: UInt64, size: Int) { _ = remove(iova: iova, size: size) }

  /// Takes a mapping away; false when there is none with just this range.
  public func remove(iova: UInt64, size: Int) -> Bool {
    let place = firstIndex(above: iova) - 1
    guard place >= 0, windows[place].iova == iova, windows[place].size == size else {
      return false
    }
    forget()
    windows.remove(at: place)
    releases.remove(at: place)?()
    return true
  }

  /// Takes every mapping away.
  public func unmapAll() {
    let old = releases
    forget()
    windows = []
    releases = []
    for release in old { release?() }
  }

  private func forget() {
    last = DMAWindow()
    generation += 1
  }

  /// Where the device finds `count` bytes from `iova`, if all of them are in one mapping.
  ///
  /// - Returns: nil when they are not, or are read-only for a write; that is counted.
  public func pointer(to iova: UInt64, count: Int, forWriting: Bool)
    -> UnsafeMutableRawPointer?
  {
    if let window = window(at: iova, forWriting: forWriting),
      let pointer = unsafe window.pointer(to: iova, count: count)
    {
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
      guard let window = window(at: at, forWriting: forWriting) else {
        refuse(at, count - done, forWriting)
        return false
      }
      let room = window.size &- (at &- window.iova)
      let size = Int(min(room, UInt64(count - done)))
      guard let pointer = unsafe window.pointer(to: at, count: size) else { return false }
      unsafe body(pointer, done, size)
      done += size
    }
    return true
  }

  /// The mapping that has the byte at `iova`, if the access is allowed; a miss is not counted.
  @inline(__always)
  func window(at iova: UInt64, forWriting: Bool) -> DMAWindow? {
    if iova &- last.iova >= last.size && !search(iova) { return nil }
    return forWriting && !last.isWritable ? nil : last
  }

  @inline(never)
  private func search(_ iova: UInt64) -> Bool {
    let place = firstIndex(above: iova) - 1
    guard place >= 0, iova - windows[place].iova < windows[place].size else { return false }
    last = windows[place]
    return true
  }

  /// The index of the first window that starts after `iova`.
  private func firstIndex(above iova: UInt64) -> Int {
    var (low, high) = (0, windows.count)
    while low < high {
      let middle = (low + high) / 2
      if windows[middle].iova <= iova { low = middle + 1 } else { high = middle }
    }
    return low
  }

  @inline(never)
  private func refuse(_ iova: UInt64, _ count: Int, _ isWrite: Bool) {
    violations += 1
    onViolation?(iova, count, isWrite)
  }
}
