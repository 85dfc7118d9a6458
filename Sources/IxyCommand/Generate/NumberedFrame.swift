import Emulation
import Ixy

/// Makes the numbered UDP frames that sinks check (`TestFrame`), over IPv4 or IPv6, with or without a VLAN tag.
///
/// What all frames share is in `bytes`; `number` writes the rest: lengths, flow, number, time, checksums.
struct NumberedFrame {
  /// A whole frame of the largest size, as number 0 of flow 0; behind our 18 bytes there are zeros.
  let bytes: [UInt8]
  /// Where the IP header, the UDP header and our bytes begin.
  private let ip: Int
  private let udp: Int
  private let isIPv6: Bool
  /// The sum of all words under a checksum that are the same in all frames.
  private let sum: UInt32
  private let stream: UInt16

  /// The smallest frame in which everything fits.
  var minimumSize: Int { max(60, udp + 26) }

  /// Frames from one address to another.
  ///
  /// - Parameters:
  ///   - size: The largest frame, in bytes without FCS.
  ///   - destination: Where they go.
  ///   - source: Where they come from.
  ///   - vlan: The VLAN of the tag; nil for none.
  ///   - isIPv6: Over IPv6.
  ///   - stream: A number that tells this run from others.
  init(
    size: Int, destination: MACAddress, source: MACAddress, vlan: Int?, isIPv6: Bool, stream: UInt16
  ) {
    ip = vlan == nil ? 14 : 18
    udp = ip + (isIPv6 ? 40 : 20)
    self.isIPv6 = isIPv6
    self.stream = stream
    let tag: [UInt16] = vlan.map { [0x8100, UInt16($0)] } ?? []
    // From 198.18.0.0 + flow to 198.19.0.1 (RFC 2544), or 2001:2:0:1::flow to 2001:2:0:2::1 (RFC 5180).
    let addresses: [UInt16] =
      isIPv6
      ? [0x2001, 2, 0, 1, 0, 0, 0, 0, 0x2001, 2, 0, 2, 0, 0, 0, 1]
      : [198 << 8 | 18, 0, 198 << 8 | 19, 1]
    // Version and such, length, identification, don't fragment; then 64 hops, UDP.
    let header: [UInt16] =
      isIPv6 ? [0x6000, 0, 0, 17 << 8 | 64] : [0x4500, 0, 0, 0x4000, 64 << 8 | 17, 0]
    let ports = [TestFrame.firstPort, TestFrame.port]
    let type: UInt16 = isIPv6 ? 0x86DD : 0x0800
    let own = [TestFrame.magic, stream]
    let words: [UInt16] = [tag, [type], header, addresses, ports, [0, 0], own].flatMap { $0 }
    var bytes = (0..<6).map { destination[$0] } + (0..<6).map { source[$0] }
    bytes += words.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
    self.bytes = bytes + [UInt8](repeating: 0, count: max(0, size - bytes.count))
    // IPv4 has a checksum of its header, IPv6 none; UDP may go without over IPv4, but not over IPv6.
    let summed: [UInt16] =
      isIPv6 ? [addresses, [17], ports, own].flatMap { $0 } : header + addresses
    sum = summed.reduce(0) { $0 + UInt32($1) }
  }

  /// Makes a frame with a number out of one that begins with `bytes`.
  func number(
    _ frame: UnsafeMutableRawPointer, size: Int, flow: Int, sequence: UInt64, time: UInt64
  ) {
    let flow = UInt16(truncatingIfNeeded: flow)
    func put(_ value: some FixedWidthInteger, at offset: Int) {
      unsafe frame.storeBytes(of: value.bigEndian, toByteOffset: offset, as: type(of: value))
    }
    let udpLength = UInt16(truncatingIfNeeded: size - udp)
    put(TestFrame.firstPort | flow, at: udp)
    put(udpLength, at: udp + 4)
    put(sequence, at: udp + 12)
    // One store for six bytes of time: the two before them are the end of the number.
    put(sequence << 48 | time & 0xFFFF_FFFF_FFFF, at: udp + 18)
    if isIPv6 {
      put(udpLength, at: ip + 4)
      put(flow, at: ip + 22)
      var sum = sum &+ 2 &* (UInt32(udpLength) &+ UInt32(flow))
      for shift: UInt64 in [0, 16, 32, 48] { sum &+= UInt32(sequence >> shift & 0xFFFF) }
      for shift: UInt64 in [0, 16, 32] { sum &+= UInt32(time >> shift & 0xFFFF) }
      let checksum = Self.checksum(sum)
      // 0 would say that there is no checksum.
      put(checksum == 0 ? 0xFFFF : checksum, at: udp + 6)
    } else {
      let length = UInt16(truncatingIfNeeded: size - ip)
      put(length, at: ip + 2)
      put(flow, at: ip + 14)
      put(Self.checksum(sum &+ UInt32(length) &+ UInt32(flow)), at: ip + 10)
    }
  }

  /// The one's complement of the one's complement sum (RFC 1071).
  private static func checksum(_ sum: UInt32) -> UInt16 {
    let once = sum & 0xFFFF + sum >> 16
    return ~UInt16(truncatingIfNeeded: once & 0xFFFF + once >> 16)
  }
}
