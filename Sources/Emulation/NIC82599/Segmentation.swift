/// One large frame that the card cuts into segments (TSE; descriptor reference, 2.4).
///
/// Segments are made one at a time, as the wire takes them. Each gets its headers right before its payload,
/// over payload that has gone out already.
@safe struct Segmentation {
  // SAFETY: `init` has checked that all headers lie in the frame and are at least as long as what
  // is read of them. A segment's headers are written before its payload, where payload has gone out
  // already or the first headers were; `headers` holds the longest that a context can describe.
  /// DTXTCPFLG: the TCP flags that stay in the first, the middle and the last segments.
  struct FlagMasks {
    var first: UInt16 = 0xFFF
    var middle: UInt16 = 0xFFF
    var last: UInt16 = 0xFFF
  }

  /// The longest headers that a context can describe.
  static let longestHeaders = 127 + 511 + 255

  private let base: UnsafeMutableRawPointer
  private let headers: UnsafeMutableRawPointer
  private let headersLength: Int
  private let payloadLength: Int
  private let context: TransmitContext
  private let masks: FlagMasks
  private let isIPv4: Bool
  private var offset = 0
  private var index = 0
  private(set) var isFinished = false

  /// Starts with the whole frame; nil when the context does not describe such a frame.
  ///
  /// - Parameters:
  ///   - frame: The frame, which is overwritten, with 4 free bytes before it.
  ///   - headers: Where a copy of its headers is kept: `longestHeaders` bytes.
  ///   - context: Where its headers are, and how long a segment's payload may be.
  ///   - longest: The longest segment allowed, headers included.
  ///   - masks: The TCP flags to keep.
  init?(
    _ frame: UnsafeMutableRawBufferPointer, headers: UnsafeMutableRawPointer,
    context: TransmitContext, longest: Int, masks: FlagMasks
  ) {
    let length = context.transportStart + context.transportLength
    guard let base = frame.baseAddress, context.linkLength >= 14, context.maximumSegment > 0,
      length <= frame.count, length + context.maximumSegment <= longest
    else { return nil }
    let version = unsafe base.load(fromByteOffset: context.linkLength, as: UInt8.self) >> 4
    switch context.transport {
    case .tcp: guard context.transportLength >= 20 else { return nil }
    case .udp: guard context.transportLength == 8 else { return nil }
    case .sctp, .reserved: return nil
    }
    switch version {
    case 4: guard context.networkLength >= 20 else { return nil }
    case 6: guard context.networkLength >= 40 else { return nil }
    default: return nil
    }
    unsafe self.base = unsafe base
    unsafe self.headers = unsafe headers
    headersLength = length
    payloadLength = frame.count - length
    self.context = context
    self.masks = masks
    isIPv4 = version == 4
    unsafe headers.copyMemory(from: base, byteCount: length)
  }

  /// Makes the next segment, with 4 free bytes before it; its payload is not copied.
  mutating func next() -> UnsafeMutableRawBufferPointer {
    let size = min(context.maximumSegment, payloadLength - offset)
    let start = unsafe base + offset
    unsafe start.copyMemory(from: headers, byteCount: headersLength)
    isFinished = offset + size == payloadLength
    unsafe writeNetworkLength(start + context.linkLength, context.transportLength + size)
    let transport = unsafe start + context.transportStart
    if context.transport == .tcp {
      unsafe add(offset, to: transport, 4)
      unsafe maskFlags(transport)
    } else {
      unsafe store(8 + size, transport, 4)
    }
    let segment = unsafe UnsafeMutableRawBufferPointer(start: start, count: headersLength + size)
    if isIPv4 { unsafe TransmitOffload.insertHeaderChecksum(segment, context) }
    unsafe TransmitOffload.insertTransportChecksum(
      segment, context, addingLength: context.transportLength + size)
    offset += size
    index += 1
    return unsafe segment
  }

  /// The lengths in the IP header, and IPv4's identification: one more for each segment.
  private func writeNetworkLength(_ header: UnsafeMutableRawPointer, _ payload: Int) {
    if isIPv4 {
      unsafe store(context.networkLength + payload, header, 2)
      let identification = unsafe header.loadUnaligned(fromByteOffset: 4, as: UInt16.self).bigEndian
      unsafe store(Int(identification) + index, header, 4)
    } else {
      unsafe store(context.networkLength - 40 + payload, header, 4)
    }
  }

  /// After a reset FIN and PSH stay in the last segment alone, CWR in all others.
  private func maskFlags(_ transport: UnsafeMutableRawPointer) {
    // A frame of one segment is first and last at once: it keeps what it has.
    if index == 0 && isFinished { return }
    let mask = index == 0 ? masks.first : isFinished ? masks.last : masks.middle
    let flags = unsafe transport.loadUnaligned(fromByteOffset: 12, as: UInt16.self).bigEndian
    unsafe store(Int(flags & (mask | 0xF000)), transport, 12)
  }

  private func store(_ value: Int, _ header: UnsafeMutableRawPointer, _ place: Int) {
    unsafe header.storeBytes(
      of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: place, as: UInt16.self)
  }

  private func add(_ value: Int, to header: UnsafeMutableRawPointer, _ place: Int) {
    let old = unsafe header.loadUnaligned(fromByteOffset: place, as: UInt32.self).bigEndian
    let new = old &+ UInt32(truncatingIfNeeded: value)
    unsafe header.storeBytes(of: new.bigEndian, toByteOffset: place, as: UInt32.self)
  }
}
