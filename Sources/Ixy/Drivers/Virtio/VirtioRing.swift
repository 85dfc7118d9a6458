import CIxy

/// The memory of one ring, which stays until the device has forgotten it.
@safe final class VirtioRingMemory {
  /// The number of entries, a power of two.
  let entries: Int
  let isPacked: Bool
  private let memory: DMAMemory
  private let layout: (driver: Int, device: Int)

  /// The most entries that a ring may have.
  static func maximumEntries(packed: Bool) -> Int { packed ? 1 << 14 : 1 << 15 }

  /// Zeroed memory for a ring; a split one is laid out as legacy devices want it.
  init(entries: Int, packed: Bool, in domain: DMADomain) throws(DeviceError) {
    self.entries = entries
    isPacked = packed
    let table = 16 * entries
    // Split: flags, index, an identifier each, and an event. Used: the same with eight bytes each.
    layout =
      packed ? (table, table + 64) : (table, (table + 6 + 2 * entries).roundedUp(to: 4096))
    let size = layout.device + (packed ? 64 : 6 + 8 * entries)
    memory = try domain.allocate(size, alignment: 4096)
  }

  /// Empties a ring that the device does not have.
  func clear() {
    unsafe memory.base.initializeMemory(as: UInt8.self, repeating: 0, count: memory.size)
  }

  /// The descriptors, for the device.
  var descriptors: UInt64 { memory.iova }
  /// What the driver writes beside them, for the device.
  var driverArea: UInt64 { memory.iova + UInt64(layout.driver) }
  /// What the device writes beside them, for the device.
  var deviceArea: UInt64 { memory.iova + UInt64(layout.device) }

  /// The three parts, for us.
  var parts:
    (
      descriptors: UnsafeMutablePointer<Descriptor>, driver: UnsafeMutableRawPointer,
      device: UnsafeMutableRawPointer
    )
  {
    unsafe (
      memory.base.assumingMemoryBound(to: Descriptor.self), memory.base + layout.driver,
      memory.base + layout.device
    )
  }

  /// Keeps the memory mapped for ever: the device did not stop, and may still write there.
  func leak() { _ = unsafe Unmanaged.passRetained(memory.block) }
}

/// What was negotiated, as far as a queue must know it.
@usableFromInline struct VirtioFormat {
  /// The bytes before each frame: 10, 12, or 20 with a hash.
  @usableFromInline let headerSize: Int
  /// Whether a frame may fill several receive buffers, whose number is in its header.
  @usableFromInline let isMergeable: Bool
  /// All ones where the header has a hash; else 0.
  @usableFromInline let hashMask: UInt32
  /// Whether each side says at which entry it wants to be told.
  @usableFromInline let hasEvents: Bool
  /// Whether the header needs a descriptor of its own: legacy devices without ANY_LAYOUT.
  @usableFromInline let isChained: Bool
  /// The longest frame without header, in bytes.
  @usableFromInline let longest: Int

  /// From a buffer to the device's header before it.
  @inlinable @inline(__always) var toHeader: Int { 0 &- headerSize }

  /// The least that a device writes for a frame: the header, and 14 bytes.
  @inlinable @inline(__always) var least: Int { headerSize &+ 14 }

  /// Whether a header is one of a frame that wants nothing done, and fills one buffer.
  @inlinable @inline(__always) func isUsual(_ header: UnsafeMutableRawPointer) -> Bool {
    if unsafe !isPlain(header) { return false }
    // Devices for which it does not count have 1 there, too, or nothing.
    return unsafe _fastPath(bufferCount(header) == 1) || !isMergeable
  }

  /// Whether the header asks for nothing that was not negotiated: a checksum to be filled in (flags, bit
  /// 0), a segment to be cut (type other than 0).
  ///
  /// That the checksum was found right (bit 1) is sometimes said unasked, and means no work.
  @inlinable @inline(__always) func isPlain(_ header: UnsafeMutableRawPointer) -> Bool {
    unsafe ixy_load16(header) & 0xFF01 == 0
  }

  /// The number of buffers that the frame fills.
  @inlinable @inline(__always) func bufferCount(_ header: UnsafeMutableRawPointer) -> UInt16 {
    unsafe ixy_load16(header + 10)
  }

  @inlinable @inline(__always) func hash(_ header: UnsafeMutableRawPointer) -> UInt32 {
    unsafe ixy_load32(header + 12) & hashMask
  }
}

extension Buffer {
  /// Writes the header of a frame that is sent as it is: zeros before it, as many as the longest header has.
  @inlinable @inline(__always) func clearVirtioHeader() {
    unsafe (self - 8).storeBytes(of: 0, as: UInt64.self)
    unsafe (self - 16).storeBytes(of: 0, as: UInt64.self)
    unsafe (self - 24).storeBytes(of: 0, as: UInt64.self)
  }
}

extension UnsafeMutablePointer<PoolState> {
  /// Puts free buffers on the stack as one block; none of them is nil.
  @inline(__always) func give(_ buffers: UnsafeMutablePointer<Buffer?>, count: Int) {
    let top = unsafe pointee.top
    // SAFETY: an optional pointer that is not nil has the same bytes as the pointer.
    unsafe UnsafeMutableRawPointer(pointee.stack + top)
      .copyMemory(from: buffers, byteCount: count &* MemoryLayout<Buffer>.stride)
    unsafe pointee.top = top &+ count
  }
}

/// A buffer that a queue has given to the device, and whose it is.
@safe struct VirtioLoan {
  let buffer: Buffer
  let pool: PoolReference
}

/// What becomes of a received frame that is not simply whole.
@usableFromInline enum VirtioOddFrame: ~Copyable {
  /// It was counted as an error, and its buffers are the device's again.
  case dropped
  /// It was put together.
  case packet(Packet)
  /// Nothing more can be received now.
  case wait
}

/// A frame that is put together from several receive buffers.
struct VirtioGatheredFrame: ~Copyable {
  private var packet: Packet?
  private var isFirst = true
  private let format: VirtioFormat
  private let room: Int

  /// An empty frame.
  ///
  /// - Parameters:
  ///   - pool: Where it goes; nil when it is no good already.
  ///   - format: What its first buffer begins with.
  ///   - room: The size of each buffer.
  init(_ pool: Mempool?, _ format: VirtioFormat, room: Int) {
    packet = pool?.packet(length: 0)
    self.format = format
    self.room = room
  }

  /// Copies what the device says that it wrote; the frame is no good when that cannot be.
  mutating func append(_ buffer: Buffer, _ size: Int) {
    // Only the first buffer has a header; elsewhere the frame goes on where that would be.
    let skipped = isFirst ? format.headerSize : 0
    isFirst = false
    let length = (packet?.count ?? 0) + size - skipped
    guard size >= skipped, size <= format.headerSize + room, length <= format.longest else {
      packet = nil
      return
    }
    // SAFETY: the buffer has that much after its header, the packet at least `longest`.
    let source = unsafe buffer - format.headerSize + skipped
    unsafe packet?.append(source, size - skipped)
  }

  /// The frame, unless something was wrong with it.
  consuming func finish() -> Packet? {
    guard (packet?.count ?? 0) >= 14 else { return nil }
    return packet
  }
}

extension Packet {
  /// Copies bytes to the end of the frame, where there must be room.
  fileprivate mutating func append(_ source: UnsafeRawPointer, _ size: Int) {
    let old = count
    count += size
    unsafe (buffer + old).copyMemory(from: source, byteCount: size)
  }
}
