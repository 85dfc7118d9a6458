/// What the receiver finds in the headers of a frame.
///
/// The bytes come from a stranger: every length in them is checked against what is there.
struct FrameHeaders {
  // SAFETY: a frame has at least 60 bytes, so that 40 of network header lie in it at 14 or 18; what
  // goes beyond these is read after a comparison with `count`. Its bytes are the wire's, and nobody
  // changes them meanwhile.
  /// The packet type, as in bits 16:4 of an advanced descriptor's first word.
  var packetType: UInt32 = 0
  /// IPCS, L4CS, UDPCS, IPE and L4E, as in an advanced descriptor's third word.
  var status: UInt32 = 0
  /// Where the ports are; 0 unless the frame is TCP or UDP, and no fragment.
  var ports = 0

  /// Packet types (descriptor reference, 1.3).
  enum Kind {
    static let ipv4: UInt32 = 1 << 4
    static let ipv4Options: UInt32 = 1 << 5
    static let ipv6: UInt32 = 1 << 6
    static let ipv6Extensions: UInt32 = 1 << 7
    static let tcp: UInt32 = 1 << 8
    static let udp: UInt32 = 1 << 9
    static let sctp: UInt32 = 1 << 10
  }

  /// Status and errors (descriptor reference, 1.3).
  enum Status {
    static let udpChecked: UInt32 = 1 << 4
    static let transportChecked: UInt32 = 1 << 5
    static let headerChecked: UInt32 = 1 << 6
    static let transportError: UInt32 = 1 << 30
    static let headerError: UInt32 = 1 << 31
  }

  /// Numbers of protocols over IP.
  private enum Transport {
    static let tcp: UInt8 = 6
    static let udp: UInt8 = 17
    static let sctp: UInt8 = 132
  }

  /// The headers of a frame of at least 60 bytes, whose network header is at `network`.
  @inline(__always)
  static func find(in frame: UnsafeRawPointer, count: Int, network: Int) -> FrameHeaders {
    unsafe isPlainIPv4(frame, network)
      ? plainIPv4(frame, count, network) : findOther(frame, count, network)
  }

  /// Whether an IPv4 header of 20 bytes follows: nearly all frames have one.
  @inline(__always)
  static func isPlainIPv4(_ frame: UnsafeRawPointer, _ network: Int) -> Bool {
    let word = unsafe frame.loadUnaligned(fromByteOffset: network - 2, as: UInt32.self).bigEndian
    return word & 0xFFFF_FF00 == 0x0800_4500
  }

  /// The headers of any other frame.
  @inline(never)
  static func findOther(
    _ frame: UnsafeRawPointer, _ count: Int, _ network: Int
  ) -> FrameHeaders {
    switch unsafe frame.loadUnaligned(fromByteOffset: network - 2, as: UInt16.self).bigEndian {
    case 0x0800: unsafe ipv4WithOptions(frame, count, network)
    case 0x86DD: unsafe ipv6(frame, count, network)
    default: FrameHeaders()
    }
  }

  /// An IPv4 header of 20 bytes.
  @inline(__always)
  static func plainIPv4(
    _ frame: UnsafeRawPointer, _ count: Int, _ network: Int
  ) -> FrameHeaders {
    let first = unsafe frame.loadUnaligned(fromByteOffset: network, as: UInt64.self)
    let second = unsafe frame.loadUnaligned(fromByteOffset: network + 8, as: UInt64.self)
    let third = unsafe UInt64(frame.loadUnaligned(fromByteOffset: network + 16, as: UInt32.self))
    var found = FrameHeaders(packetType: Kind.ipv4, status: Status.headerChecked)
    if !Checksum.isGood(Checksum.add(Checksum.add(first, second), third)) {
      found.status |= Status.headerError
    }
    // MF, or an offset: a fragment, whose ports and checksum are not looked at.
    if UInt16(truncatingIfNeeded: first >> 48) & UInt16(0x3FFF).bigEndian == 0 {
      let total = Int(UInt16(truncatingIfNeeded: first >> 16).bigEndian)
      unsafe found.findTransport(
        frame, count, at: network &+ 20, size: total &- 20,
        kind: UInt8(truncatingIfNeeded: second >> 8), addresses: (second >> 32) &+ third)
    }
    return found
  }

  /// What comes after the IP header: `size` bytes at `at`, as that header says.
  @inline(__always)
  private mutating func findTransport(
    _ frame: UnsafeRawPointer, _ count: Int, at: Int, size: Int, kind: UInt8,
    addresses: @autoclosure () -> UInt64
  ) {
    // Truncated, the type stands, and nothing more can be said.
    let isWhole = size >= 8 && size <= count &- at
    switch kind {
    case Transport.udp:
      packetType |= Kind.udp
      guard isWhole else { return }
      ports = at
      // A UDP checksum of 0 means that there is none.
      if unsafe frame.loadUnaligned(fromByteOffset: at &+ 6, as: UInt16.self) != 0 {
        unsafe status |= Self.checkUDP(frame + at, size, addresses())
      }
    case Transport.tcp:
      packetType |= Kind.tcp
      guard isWhole else { return }
      ports = at
      if size >= 20 { unsafe status |= Self.checkSum(frame + at, size, kind, addresses()) }
    case Transport.sctp:
      packetType |= Kind.sctp
      if isWhole { unsafe status |= Self.checkSCTP(frame + at, size) }
    default: break
    }
  }

  @inline(never)
  private static func checkUDP(
    _ start: UnsafeRawPointer, _ size: Int, _ addresses: UInt64
  ) -> UInt32 {
    let length = unsafe Int(start.loadUnaligned(fromByteOffset: 4, as: UInt16.self).bigEndian)
    // A length that cannot be: it is not known what the checksum covers.
    if length < 8 || length > size {
      return Status.udpChecked | Status.transportChecked | Status.transportError
    }
    return unsafe Status.udpChecked | checkSum(start, length, Transport.udp, addresses)
  }

  /// Sums a TCP or UDP segment with its pseudo header.
  @inline(never)
  private static func checkSum(
    _ start: UnsafeRawPointer, _ size: Int, _ kind: UInt8, _ addresses: UInt64
  ) -> UInt32 {
    let pseudo = UInt64(UInt16(kind).bigEndian) &+ UInt64(UInt32(size).bigEndian)
    let sum = unsafe Checksum.add(Checksum.sum(start, size), Checksum.add(addresses, pseudo))
    return Status.transportChecked | (Checksum.isGood(sum) ? 0 : Status.transportError)
  }

  private static func checkSCTP(_ start: UnsafeRawPointer, _ size: Int) -> UInt32 {
    guard size >= 12 else { return 0 }
    var zero: UInt32 = 0
    var state = unsafe CyclicCheck.sctp.extend(.max, start, 8)
    state = unsafe CyclicCheck.sctp.extend(state, &zero, 4)
    state = unsafe ~CyclicCheck.sctp.extend(state, start + 12, size - 12)
    let isGood =
      unsafe state == start.loadUnaligned(fromByteOffset: 8, as: UInt32.self).littleEndian
    return Status.transportChecked | (isGood ? 0 : Status.transportError)
  }

  private static func ipv4WithOptions(
    _ frame: UnsafeRawPointer, _ count: Int, _ network: Int
  ) -> FrameHeaders {
    let version = unsafe frame.load(fromByteOffset: network, as: UInt8.self)
    let header = Int(version & 0xF) * 4
    guard version >> 4 == 4, header >= 20, network + header <= count else { return FrameHeaders() }
    var found = FrameHeaders(
      packetType: Kind.ipv4 | Kind.ipv4Options, status: Status.headerChecked)
    if unsafe !Checksum.isGood(Checksum.sum(frame + network, header)) {
      found.status |= Status.headerError
    }
    let total = unsafe Int(
      frame.loadUnaligned(fromByteOffset: network + 2, as: UInt16.self).bigEndian)
    let fragment = unsafe frame.loadUnaligned(fromByteOffset: network + 6, as: UInt16.self)
      .bigEndian
    if fragment & 0x3FFF == 0 {
      unsafe found.findTransport(
        frame, count, at: network + header, size: total - header,
        kind: frame.load(fromByteOffset: network + 9, as: UInt8.self),
        addresses: Checksum.sum(frame + network + 12, 8))
    }
    return found
  }

  private static func ipv6(
    _ frame: UnsafeRawPointer, _ count: Int, _ network: Int
  ) -> FrameHeaders {
    guard network + 40 <= count,
      unsafe frame.load(fromByteOffset: network, as: UInt8.self) >> 4 == 6
    else { return FrameHeaders() }
    var found = FrameHeaders(packetType: Kind.ipv6)
    let size = unsafe Int(
      frame.loadUnaligned(fromByteOffset: network + 4, as: UInt16.self).bigEndian)
    let end = network + 40 + size
    var at = network + 40
    var kind = unsafe frame.load(fromByteOffset: network + 6, as: UInt8.self)
    // Hop-by-hop options, routing, fragment, authentication, destination options, mobility: each says
    // what follows and how long it is. A chain of more than eight is not followed.
    for _ in 0..<8 {
      guard [0, 43, 44, 51, 60, 135].contains(kind), at + 8 <= min(end, count) else { break }
      found.packetType |= Kind.ipv6Extensions
      if kind == 44 { return found }
      let isAuthentication = kind == 51
      kind = unsafe frame.load(fromByteOffset: at, as: UInt8.self)
      let length = unsafe Int(frame.load(fromByteOffset: at + 1, as: UInt8.self))
      at += isAuthentication ? (length + 2) * 4 : (length + 1) * 8
    }
    unsafe found.findTransport(
      frame, count, at: at, size: end - at, kind: kind,
      addresses: Checksum.sum(frame + network + 8, 32))
    return found
  }

  /// The sum of the payload of a UDP fragment over IPv4, and its identification above: for drivers that
  /// put fragments together.
  ///
  /// - Returns: nil when the frame is none.
  static func fragment(
    in frame: UnsafeRawPointer, count: Int, network: Int
  ) -> UInt32? {
    let type = unsafe frame.loadUnaligned(fromByteOffset: network - 2, as: UInt16.self).bigEndian
    let version = unsafe frame.load(fromByteOffset: network, as: UInt8.self)
    let header = Int(version & 0xF) * 4
    let total = unsafe Int(
      frame.loadUnaligned(fromByteOffset: network + 2, as: UInt16.self).bigEndian)
    let offset = unsafe frame.loadUnaligned(fromByteOffset: network + 6, as: UInt16.self).bigEndian
    guard type == 0x0800, version >> 4 == 4, header >= 20, total >= header,
      network + total <= count, offset & 0x3FFF != 0,
      unsafe frame.load(fromByteOffset: network + 9, as: UInt8.self) == Transport.udp
    else { return nil }
    let sum = unsafe Checksum.fold(Checksum.sum(frame + network + header, total - header)).bigEndian
    let identification = unsafe frame.loadUnaligned(fromByteOffset: network + 4, as: UInt16.self)
      .bigEndian
    return UInt32(sum) | UInt32(identification) << 16
  }
}
