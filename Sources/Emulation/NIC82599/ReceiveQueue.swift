import CIxy

/// What a descriptor says of a frame, beside its length.
struct ReceiveReport {
  /// RSS type and packet type: the first word of an advanced descriptor.
  var type: UInt32 = 0
  /// RSS hash, or checksum and identification of a fragment: the second word.
  var detail: UInt32 = 0
  /// Status and errors: the third word, without DD and EOP.
  var status: UInt32 = 0
  /// The VLAN tag that was taken out.
  var tag: UInt16 = 0

  static let done: UInt32 = 1 << 0
  static let endOfPacket: UInt32 = 1 << 1
  /// VP: `tag` is valid.
  static let hasTag: UInt32 = 1 << 3
  /// PIF: the frame passed by the multicast table alone.
  static let inexact: UInt32 = 1 << 7
  /// UDPV: `detail` is of a UDP fragment.
  static let fragmentValid: UInt32 = 1 << 10
  /// RXE: the frame is bad.
  static let error: UInt32 = 1 << 29
}

/// One receive queue: its ring, and how frames are stored in it (descriptor reference, sections 1 and 3).
@safe struct ReceiveQueue {
  // SAFETY: `window` begins where the last buffer's mapping does and is shortened by a buffer, so
  // that a whole one fits wherever it gives a pointer; frames copied there are no longer than
  // `bufferSize`. A descriptor comes from `ring`.
  /// What became of a frame.
  enum Outcome {
    case stored
    /// The card has too few descriptors for it now.
    case noDescriptor
    /// It does not fit into the ring, or its buffer is not the card's to write.
    case refused
  }

  var isEnabled = false
  var ring = CardRing()
  /// The mapping that the last buffer was in, as far as whole buffers begin in it.
  private var window = DMAWindow()
  /// Frames that were stored since the last poll.
  var frames = 0
  /// BSIZEPKT: the bytes of one buffer.
  private(set) var bufferSize = 0
  /// DESCTYPE 0.
  var isLegacy = true
  /// VME: VLAN tags go from the frame to the descriptor.
  var stripsTag = false
  /// DROP_EN.
  var dropsEarly = false
  /// The bytes of those frames; not beside `frames` in memory, as two adds are less than one of a vector.
  var octets = 0

  /// Takes SRRCTL and RXDCTL in.
  mutating func refresh(_ registers: RegisterFile, bank: Int) {
    let split = registers[bank + EngineRegister.Bank.srrctl]
    bufferSize = Int(split & 0x1F) << 10
    window = DMAWindow()
    isLegacy = split >> 25 & 7 == 0
    dropsEarly = split & EngineBit.dropWhenEmpty != 0
    stripsTag = registers.has(EngineBit.vlanStrip, at: bank + EngineRegister.Bank.control)
  }

  /// Forgets all pointers: the mappings have changed.
  mutating func forgetMappings() {
    ring.forgetMapping()
    window = DMAWindow()
  }

  /// Copies a frame that fits into one buffer, which is nearly always in the mapping of the last.
  ///
  /// - Returns: Its descriptor, to be given back by `finish`; nil, with nothing done, when it is not that simple.
  @inline(__always)
  func copy(_ frame: UnsafeRawPointer, _ count: Int) -> UnsafeMutableRawPointer? {
    guard ring.ready > 0, let buffer = unsafe window.pointer(to: ixy_load64(ring.next)) else {
      return nil
    }
    let descriptor = unsafe ring.next
    unsafe buffer.copyMemory(from: frame, byteCount: count)
    return unsafe descriptor
  }

  /// Gives the descriptor back that `copy` has used.
  @inline(__always)
  mutating func finish(
    _ descriptor: UnsafeMutableRawPointer, _ count: Int, _ report: ReceiveReport
  ) {
    unsafe complete(descriptor, count, report)
    unsafe ring.pass(descriptor)
  }

  /// Stores a frame in as many buffers as it takes.
  @inline(never)
  mutating func store(
    _ frame: UnsafeRawPointer, _ count: Int, _ report: ReceiveReport, _ dma: DMATable
  ) -> Outcome {
    if ring.count == 0 { return .noDescriptor }
    // Head and tail being equal means an empty ring: one descriptor of it can never be the card's.
    guard bufferSize > 0, count <= bufferSize * (ring.count - 1) else { return .refused }
    let needed = (count + bufferSize - 1) / bufferSize
    if needed > ring.owned { return .noDescriptor }
    for i in 0..<needed {
      guard let descriptor = unsafe ring.descriptor(i, in: dma) else { return .noDescriptor }
      let size = min(bufferSize, count - i * bufferSize)
      guard unsafe write(frame + i * bufferSize, size, to: ixy_load64(descriptor), dma) else {
        return .refused
      }
    }
    // The last first: when the driver sees the first, it sees all of the frame.
    for i in (0..<needed).reversed() {
      guard let descriptor = unsafe ring.descriptor(i, in: dma) else { return .noDescriptor }
      if i == needed - 1 {
        unsafe complete(descriptor, count - i * bufferSize, report)
      } else {
        unsafe completePart(descriptor, bufferSize, report)
      }
    }
    ring.advance(by: needed)
    return .stored
  }

  private mutating func write(
    _ bytes: UnsafeRawPointer, _ count: Int, to iova: UInt64, _ dma: DMATable
  ) -> Bool {
    if let found = dma.window(at: iova, forWriting: true),
      let buffer = unsafe found.pointer(to: iova, count: count)
    {
      window = found.shortened(by: bufferSize - 1)
      unsafe buffer.copyMemory(from: bytes, byteCount: count)
      return true
    }
    return unsafe dma.write(iova, from: bytes, count: count)
  }

  /// Gives the last, or only, descriptor of a frame back.
  @inline(__always)
  private func complete(
    _ descriptor: UnsafeMutableRawPointer, _ count: Int, _ report: ReceiveReport
  ) {
    let ends = ReceiveReport.done | ReceiveReport.endOfPacket
    let status = UInt64(report.status | ends)
    let rest = UInt64(truncatingIfNeeded: count) | UInt64(report.tag) << 16
    if isLegacy {
      // Status and errors are the lowest and the highest byte of the advanced form (section 1.2).
      let length = rest & 0xFFFF | (rest >> 16) << 48
      unsafe ixy_store64(descriptor + 8, length | (status & 0xFF) << 32 | (status >> 24) << 40)
    } else {
      unsafe ixy_store64(descriptor, UInt64(report.type) | UInt64(report.detail) << 32)
      // Length, status and DD become visible together, and after everything else (section 1.3).
      unsafe ixy_store64(descriptor + 8, status | rest << 32)
    }
  }

  /// Gives a descriptor back that more of the same frame follows.
  private func completePart(
    _ descriptor: UnsafeMutableRawPointer, _ count: Int, _ report: ReceiveReport
  ) {
    let length = UInt64(UInt16(truncatingIfNeeded: count))
    let done = UInt64(ReceiveReport.done)
    if isLegacy {
      unsafe ixy_store64(descriptor + 8, length | done << 32)
    } else {
      unsafe ixy_store64(descriptor, UInt64(report.type) | UInt64(report.detail) << 32)
      unsafe ixy_store64(descriptor + 8, length << 32 | done)
    }
  }
}
