/// What the receiver finds in the headers of a frame.
///
/// The bytes come from a stranger: every length in them is checked against what is there.
struct FrameHeaders {
  /// The packet type, as in bits 16:4 of an advanced descriptor's first word.
  var packetType: UInt32 = 0
  /// IPCS, L4CS, UDPCS, IPE and L4E, as in an advanced descriptor's third word.
  var status: UInt32 = 0
  /// Where the IP header's addresses are; 0 without IP.
  var addressesAt = 0
  /// Where the ports are; 0 unless the frame is TCP or UDP, and no fragment.
  var portsAt = 0
  /// For a UDP fragment over IPv4: the sum of its payload, and its identification above.
  var fragment: UInt32 = 0

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

  /// The headers of a frame of at least 60 bytes, whose network header is at `network`.
  @inline(__always)
  static func find(
    in frame: UnsafeRawPointer, count: Int, network: Int
  ) -> FrameHeaders {
    // 0x0800 and 0x86DD, as a little-endian processor reads them.
    switch unsafe frame.loadUnaligned(fromByteOffset: network - 2, as: UInt16.self).bigEndian {
    case 0x0800:
      if unsafe frame.load(fromByteOffset: network, as: UInt8.self) == 0x45 {
        return unsafe plainIPv4(frame, count, network)
      }
      return unsafe ipv4WithOptions(frame, count, network)
    case 0x86DD: return unsafe ipv6(frame, count, network)
    default: return FrameHeaders()
    }
  }

  /// An IPv4 header of 20 bytes: nearly all of them.
  @inline(__always)
  private static func plainIPv4(
    _ frame: UnsafeRawPointer, _ count: Int, _ network: Int
  ) -> FrameHeaders {
    let first = unsafe frame.loadUnaligned(fromByteOffset: network, as: UInt64.self)
    let second = unsafe frame.loadUnaligned(fromByteOffset: network + 8, as: UInt64.self)
    let third = unsafe UInt64(frame.loadUnaligned(fromByteOffset: network + 16, as: UInt32.self))
    // Each half has 32 bits: five of them do not overflow.
    let low = (first & 0xFFFF_FFFF) &+ (first >> 32)
    let sum = low &+ (second & 0xFFFF_FFFF) &+ (second >> 32) &+ third
    var found = FrameHeaders(packetType: Kind.ipv4, status: Status.headerChecked)
    if Checksum.fold(sum) != 0xFFFF { found.status |= Status.headerError }
    found.addressesAt = network + 12
    let total = Int(UInt16(truncatingIfNeeded: first >> 16).bigEndian)
    let fragment = UInt16(truncatingIfNeeded: first >> 48).bigEndian
    // MF, or an offset: a fragment, whose ports and checksum are not looked at.
    if fragment & 0x3FFF == 0 {
      unsafe found.findTransport(
        frame, count, at: network + 20, size: total - 20,
        kind: UInt8(truncatingIfNeeded: second >> 8), addresses: (second >> 32) &+ third)
    } else {
      unsafe found.sumFragment(frame, count, network, 20, total)
    }
    return found
  }

  /// What comes after the IP header: `size` bytes at `at`, as that header says.
  @inline(__always)
  private mutating func findTransport(
    _ frame: UnsafeRawPointer, _ count: Int, at: Int, size: Int, kind: UInt8,
    addresses: @autoclosure () -> UInt64
  ) {
    guard size >= 8, at + size <= count else {
      // Truncated: the type stands, and nothing more can be said.
      packetType |= Self.type(of: kind)
      return
    }
    switch kind {
    case 6:
      packetType |= Kind.tcp
      portsAt = at
      unsafe checkTransport(frame + at, size, kind, addresses())
    case 17:
      packetType |= Kind.udp
      portsAt = at
      // A UDP checksum of 0 means that there is none.
      if unsafe frame.loadUnaligned(fromByteOffset: at + 6, as: UInt16.self) != 0 {
        status |= Status.udpChecked
        unsafe checkTransport(frame + at, size, kind, addresses())
      }
    case 132:
      packetType |= Kind.sctp
      unsafe checkSCTP(frame + at, size)
    default: break
    }
  }

  private static func type(of kind: UInt8) -> UInt32 {
    switch kind {
    case 6: Kind.tcp
    case 17: Kind.udp
    case 132: Kind.sctp
    default: 0
    }
  }

  /// Sums a TCP or UDP segment with its pseudo header.
  private mutating func checkTransport(
    _ start: UnsafeRawPointer, _ size: Int, _ kind: UInt8, _ addresses: UInt64
  ) {
    var covered = size
    if kind == 17 {
      covered = unsafe Int(start.loadUnaligned(fromByteOffset: 4, as: UInt16.self).bigEndian)
      // A length that cannot be: the checksum covers nothing that is known.
      guard covered >= 8, covered <= size else {
        status |= Status.transportChecked | Status.transportError
        return
      }
    } else if size < 20 {
      return
    }
    let pseudo = UInt64(UInt16(kind).bigEndian) &+ UInt64(UInt32(covered).bigEndian)
    let sum = unsafe Checksum.add(Checksum.sum(start, covered), Checksum.add(addresses, pseudo))
    status |= Status.transportChecked
    if Checksum.fold(sum) != 0xFFFF { status |= Status.transportError }
  }

  private mutating func checkSCTP(_ start: UnsafeRawPointer, _ size: Int) {
    guard size >= 12 else { return }
    var zero: UInt32 = 0
    var state = unsafe CyclicCheck.sctp.extend(.max, start, 8)
    state = unsafe CyclicCheck.sctp.extend(state, &zero, 4)
    state = unsafe ~CyclicCheck.sctp.extend(state, start + 12, size - 12)
    status |= Status.transportChecked
    if unsafe state != start.loadUnaligned(fromByteOffset: 8, as: UInt32.self).littleEndian {
      status |= Status.transportError
    }
  }

  /// The sum of the payload of a UDP fragment over IPv4, for drivers that gather fragments.
  @inline(never)
  private mutating func sumFragment(
    _ frame: UnsafeRawPointer, _ count: Int, _ network: Int, _ header: Int, _ total: Int
  ) {
    guard total >= header, network + total <= count,
      unsafe frame.load(fromByteOffset: network + 9, as: UInt8.self) == 17
    else { return }
    let sum = unsafe Checksum.fold(Checksum.sum(frame + network + header, total - header)).bigEndian
    let identification = unsafe frame.loadUnaligned(fromByteOffset: network + 4, as: UInt16.self)
      .bigEndian
    fragment = UInt32(sum) | UInt32(identification) << 16
  }

  @inline(never)
  private static func ipv4WithOptions(
    _ frame: UnsafeRawPointer, _ count: Int, _ network: Int
  ) -> FrameHeaders {
    let version = unsafe frame.load(fromByteOffset: network, as: UInt8.self)
    let header = Int(version & 0xF) * 4
    guard version >> 4 == 4, header >= 20, network + header <= count else { return FrameHeaders() }
    var found = FrameHeaders(
      packetType: Kind.ipv4 | Kind.ipv4Options, status: Status.headerChecked)
    if unsafe Checksum.fold(Checksum.sum(frame + network, header)) != 0xFFFF {
      found.status |= Status.headerError
    }
    found.addressesAt = network + 12
    let total = unsafe Int(
      frame.loadUnaligned(fromByteOffset: network + 2, as: UInt16.self).bigEndian)
    let fragment = unsafe frame.loadUnaligned(fromByteOffset: network + 6, as: UInt16.self)
      .bigEndian
    if fragment & 0x3FFF == 0 {
      unsafe found.findTransport(
        frame, count, at: network + header, size: total - header,
        kind: frame.load(fromByteOffset: network + 9, as: UInt8.self),
        addresses: Checksum.sum(frame + network + 12, 8))
    } else {
      unsafe found.sumFragment(frame, count, network, header, total)
    }
    return found
  }

  @inline(never)
  private static func ipv6(
    _ frame: UnsafeRawPointer, _ count: Int, _ network: Int
  ) -> FrameHeaders {
    guard network + 40 <= count,
      unsafe frame.load(fromByteOffset: network, as: UInt8.self) >> 4 == 6
    else { return FrameHeaders() }
    var found = FrameHeaders(packetType: Kind.ipv6)
    found.addressesAt = network + 8
    let size = unsafe Int(
      frame.loadUnaligned(fromByteOffset: network + 4, as: UInt16.self).bigEndian)
    let end = network + 40 + size
    var at = network + 40
    var kind = unsafe frame.load(fromByteOffset: network + 6, as: UInt8.self)
    // Hop-by-hop options, routing, authentication, destination options, mobility: each says what
    // follows and how long it is. A chain of more than eight is not followed.
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
}
