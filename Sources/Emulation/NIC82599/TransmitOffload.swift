/// The checksums that a card puts into frames.
///
/// Where a descriptor asks for one outside its frame, the frame goes out without it.
enum TransmitOffload {
  // SAFETY: frames are copies in memory of the card's, with 4 free bytes before them; each offset,
  // which is the driver's, is compared with the frame's length before it is used.
  /// Bytes of a frame that the card may change.
  typealias Frame = UnsafeMutableRawBufferPointer

  /// IXSM: the checksum of an IPv4 header, over what was in its place.
  static func insertHeaderChecksum(_ frame: Frame, _ context: TransmitContext) {
    guard context.networkLength >= 20, context.transportStart <= frame.count,
      let header = unsafe frame.baseAddress.map({ unsafe $0 + context.linkLength }),
      unsafe header.load(as: UInt8.self) >> 4 == 4
    else { return }
    unsafe header.storeBytes(of: 0, toByteOffset: 10, as: UInt16.self)
    let sum = unsafe ~Checksum.fold(Checksum.sum(header, context.networkLength))
    unsafe header.storeBytes(of: sum, toByteOffset: 10, as: UInt16.self)
  }

  /// TXSM: the checksum of TCP, UDP or SCTP.
  ///
  /// The field arrives with the sum of the pseudo header in it, in all of IPv4, IPv6 and VLANs; bit IPV4 of
  /// the context is not set for IPv4 without segmentation (observed, 2.2 and 2.3).
  ///
  /// - Parameters:
  ///   - frame: The frame.
  ///   - context: Where its headers are.
  ///   - length: What that sum lacks: the length of the segment, when the card has cut it.
  static func insertTransportChecksum(
    _ frame: Frame, _ context: TransmitContext, addingLength length: Int = 0
  ) {
    let start = context.transportStart
    switch context.transport {
    case .tcp: unsafe insertSum(frame, from: start, at: start + 16, addingLength: length)
    case .udp:
      // 0 would mean that there is none.
      if unsafe insertSum(frame, from: start, at: start + 6, addingLength: length) == 0 {
        unsafe frame.storeBytes(of: 0xFFFF, toByteOffset: start + 6, as: UInt16.self)
      }
    case .sctp: unsafe insertSCTP(frame, from: start)
    case .reserved: break
    }
  }

  /// Stores at `place` the complement of the sum of all bytes from `start`, those at `place` included.
  ///
  /// - Returns: What was stored; nil when that is outside the frame.
  @discardableResult
  static func insertSum(
    _ frame: Frame, from start: Int, at place: Int, addingLength length: Int = 0
  ) -> UInt16? {
    guard start < frame.count, place + 2 <= frame.count, let base = frame.baseAddress else {
      return nil
    }
    let rest = UInt64(UInt32(truncatingIfNeeded: length).bigEndian)
    let sum = unsafe Checksum.add(Checksum.sum(base + start, frame.count - start), rest)
    let field = ~Checksum.fold(sum)
    unsafe base.storeBytes(of: field, toByteOffset: place, as: UInt16.self)
    return field
  }

  private static func insertSCTP(_ frame: Frame, from start: Int) {
    guard start + 12 <= frame.count, let base = frame.baseAddress else { return }
    unsafe base.storeBytes(of: 0, toByteOffset: start + 8, as: UInt32.self)
    let check = unsafe CyclicCheck.sctp(base + start, frame.count - start).littleEndian
    unsafe base.storeBytes(of: check, toByteOffset: start + 8, as: UInt32.self)
  }

  /// Puts a VLAN tag behind the addresses; 4 bytes before the frame must be free.
  ///
  /// - Returns: The frame with its tag.
  static func insertTag(_ frame: Frame, type: UInt16, tag: UInt16) -> Frame {
    guard let base = frame.baseAddress, frame.count >= 12 else { return unsafe frame }
    let start = unsafe base - 4
    unsafe start.copyMemory(from: base, byteCount: 12)
    unsafe start.storeBytes(of: type.bigEndian, toByteOffset: 12, as: UInt16.self)
    unsafe start.storeBytes(of: tag.bigEndian, toByteOffset: 14, as: UInt16.self)
    return unsafe Frame(start: start, count: frame.count + 4)
  }

  /// A frame that its driver has given an FCS, without it: wires carry none.
  ///
  /// - Returns: nil when the FCS is wrong.
  static func withoutFCS(_ frame: Frame) -> Frame? {
    let count = frame.count - PortStatistics.fcs
    guard count >= 14, let base = frame.baseAddress,
      unsafe CyclicCheck.ethernet(base, count).littleEndian
        == base.loadUnaligned(fromByteOffset: count, as: UInt32.self)
    else { return nil }
    return unsafe Frame(start: base, count: count)
  }
}
