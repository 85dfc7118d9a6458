import CIxy

/// A part of memory that a vmxnet3 reads and writes, by offset: rings, and the areas that describe them.
@safe final class Vmxnet3Memory {
  private let memory: DMAMemory

  /// Zeroed memory at the alignment that the device wants.
  init(_ size: Int, in domain: DMADomain) throws(DeviceError) {
    memory = try domain.allocate(size, alignment: 512)
  }

  /// Where the processor sees it.
  var base: UnsafeMutableRawPointer { unsafe memory.base }
  /// Where the device sees it.
  var address: UInt64 { memory.iova }

  /// Back to zero, for a device that starts anew.
  func clear() {
    // SAFETY: all of it is ours, and the device is quiet.
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: memory.size)
  }

  /// Keeps the memory mapped for ever: the device did not stop, and may still write there.
  func leak() { _ = unsafe Unmanaged.passRetained(memory.block) }

  private func pointer(_ offset: Int, _ width: Int) -> UnsafeMutableRawPointer {
    precondition(offset >= 0 && offset + width <= memory.size, "offset outside the memory")
    return unsafe base + offset
  }

  subscript(byte offset: Int) -> UInt8 {
    get { unsafe ixy_load8(pointer(offset, 1)) }
    set { unsafe ixy_store8(pointer(offset, 1), newValue) }
  }

  subscript(half offset: Int) -> UInt16 {
    get { unsafe ixy_load16(pointer(offset, 2)) }
    set { unsafe ixy_store16(pointer(offset, 2), newValue) }
  }

  subscript(word offset: Int) -> UInt32 {
    get { unsafe ixy_load32(pointer(offset, 4)) }
    set { unsafe ixy_store32(pointer(offset, 4), newValue) }
  }

  subscript(long offset: Int) -> UInt64 {
    get { unsafe ixy_load64(pointer(offset, 8)) }
    set { unsafe ixy_store64(pointer(offset, 8), newValue) }
  }
}

/// The rings of one queue, in the order in which its description names them.
///
/// They are the card's own, and not the queue's: the device must know all rings before it starts.
final class Vmxnet3Rings {
  /// The entries of each ring.
  let sizes: [Int]
  let parts: [Vmxnet3Memory]

  private init(_ sizes: [Int], bytes: [Int], in domain: DMADomain) throws(DeviceError) {
    self.sizes = sizes
    var parts: [Vmxnet3Memory] = []
    for count in bytes { parts.append(try Vmxnet3Memory(count, in: domain)) }
    self.parts = parts
  }

  /// Ring 1; ring 2, for the rest of long frames, in which there is never a buffer; completions for both.
  static func receive(entries: Int, in domain: DMADomain) throws(DeviceError) -> Vmxnet3Rings {
    let sizes = [entries, entries, 2 * entries]
    return try Vmxnet3Rings(sizes, bytes: sizes.map { 16 * $0 }, in: domain)
  }

  /// The ring; copies of headers, which nobody makes; completions.
  static func transmit(entries: Int, in domain: DMADomain) throws(DeviceError) -> Vmxnet3Rings {
    try Vmxnet3Rings(
      [entries, entries, entries],
      bytes: [16 * entries, Vmxnet3Queue.dataEntry * entries, 16 * entries], in: domain)
  }

  /// The descriptors of one ring.
  func descriptors(_ part: Int) -> UnsafeMutablePointer<Descriptor> {
    // SAFETY: 16 bytes for each entry, aligned to 512, and used as nothing else.
    unsafe parts[part].base.assumingMemoryBound(to: Descriptor.self)
  }
}

extension UnsafeMutablePointer<Descriptor> {
  /// Writes the word of a descriptor that has its generation: the device may take it at once.
  @inline(__always) func publish(_ i: Int, _ high: UInt64) {
    unsafe ixy_store64(UnsafeMutableRawPointer(self + i) + 8, high)
  }

  /// Both words of a completion whose generation is `bit`; nil while there is none.
  @inline(__always) func completion(_ i: Int, _ bit: UInt64) -> (low: UInt64, high: UInt64)? {
    // SAFETY: each word is read once; the first one after the generation in the second.
    let words = unsafe UnsafeRawPointer(self + i)
    let high = unsafe ixy_load64(words + 8)
    if high >> 63 != bit { return nil }
    return unsafe (ixy_load64(words), high)
  }
}
