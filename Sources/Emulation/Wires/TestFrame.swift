import Ixy

/// The numbered frames that generators send and sinks check: Ethernet, IPv4, UDP, and 18 bytes of ours.
///
/// | bytes | content |
/// |---|---|
/// | 0...13 | Ethernet: destination, source, type 0x0800 |
/// | 14...33 | IPv4 from 198.18.0.0 + flow to 198.19.0.1 (the addresses that RFC 2544 keeps for tests) |
/// | 34...41 | UDP from port 32,768 + flow to port 9 (discard); checksum 0, which says "none" |
/// | 42...43 | magic, 0x697D |
/// | 44...45 | stream: a number that tells one run of a generator from the next |
/// | 46...53 | sequence number within the flow, from 0 |
/// | 54...59 | when it was made: nanoseconds of the monotonic clock, modulo 2^48 |
/// | 60... | each byte its own offset, modulo 256 |
///
/// All numbers are in network order. 60 bytes is the shortest frame there is, so everything fits in it.
public struct TestFrame: Equatable, Sendable {
  // SAFETY: a frame has at least 60 bytes, and up to the last field that is read where that is
  // further on; one that is written has 60, which all fields lie in.
  /// The largest number of flows.
  public static let maximumFlows = 1 << 15
  /// Times are kept modulo this: three days in nanoseconds.
  public static let timePeriod: UInt64 = 1 << 48

  /// The run of the generator.
  public var stream: UInt16
  /// The flow, below `maximumFlows`.
  public var flow: Int
  /// The number within the flow.
  public var sequence: UInt64
  /// When it was made, in nanoseconds modulo `timePeriod`.
  public var time: UInt64

  /// Reads a frame; nil when it is not one of ours from its first header to the magic.
  ///
  /// With a VLAN tag all is 4 bytes further on, over IPv6 20 bytes.
  public init?(_ frame: UnsafeRawBufferPointer) {
    let short = { (offset: Int) in
      unsafe UInt16(bigEndian: frame.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }
    guard frame.count >= FrameSize.minimum else { return nil }
    let ip = short(12) == 0x8100 ? 18 : 14
    let udp: Int
    switch short(ip - 2) {
    case 0x0800 where short(ip) >> 8 == 0x45 && short(ip + 8) & 0xFF == 17: udp = ip + 20
    case 0x86DD where short(ip + 6) >> 8 == 17: udp = ip + 40
    default: return nil
    }
    guard frame.count >= udp + 26, short(udp) >= Self.firstPort, short(udp + 2) == Self.port,
      short(udp + 8) == Self.magic
    else { return nil }
    stream = short(udp + 10)
    flow = Int(short(udp) & ~Self.firstPort)
    sequence = unsafe UInt64(
      bigEndian: frame.loadUnaligned(fromByteOffset: udp + 12, as: UInt64.self))
    let end = unsafe frame.loadUnaligned(fromByteOffset: udp + 18, as: UInt64.self)
    time = UInt64(bigEndian: end) % Self.timePeriod
  }

  /// What the payload begins with.
  public static let magic: UInt16 = 0x697D
  /// The port that the frames go to.
  public static let port: UInt16 = 9
  /// The port that flow 0 comes from.
  public static let firstPort: UInt16 = 0x8000
}

/// How to make test frames of one size: all that they share is written once, the rest for each frame.
@frozen public struct TestFrameTemplate: Sendable {
  /// The size of the frames in bytes, without FCS.
  public let size: Int
  /// The sum that the IP checksum of flow 0 is the complement of.
  @usableFromInline let sum: UInt32
  private let destination: MACAddress
  private let source: MACAddress
  private let stream: UInt16

  /// A template for frames of `size` bytes, which must be between the limits of `FrameSize`.
  public init(size: Int, destination: MACAddress, source: MACAddress, stream: UInt16) {
    precondition((FrameSize.minimum...FrameSize.maximum).contains(size))
    self.size = size
    self.destination = destination
    self.source = source
    self.stream = stream
    let words = Self.header(size: size)
    let whole = words.reduce(0) { $0 + UInt32($1) }
    // Folded twice, so that adding a flow number cannot carry more than once.
    let once = whole & 0xFFFF + whole >> 16
    sum = once & 0xFFFF + once >> 16
  }

  /// The IPv4 header of flow 0, with checksum 0.
  private static func header(size: Int) -> [UInt16] {
    let dontFragment: UInt16 = 0x4000
    let lifeAndProtocol: UInt16 = 64 << 8 | 17
    return [
      0x4500, UInt16(size - 14), 0, dontFragment, lifeAndProtocol, 0,
      198 << 8 | 18, 0, 198 << 8 | 19, 1,
    ]
  }

  /// Writes all of a frame, as number 0 of flow 0.
  ///
  /// - Parameter frame: At least `size` bytes.
  public func write(to frame: UnsafeMutableRawPointer) {
    for i in 0..<6 {
      unsafe frame.storeBytes(of: destination[i], toByteOffset: i, as: UInt8.self)
      unsafe frame.storeBytes(of: source[i], toByteOffset: 6 + i, as: UInt8.self)
    }
    let udp = [TestFrame.firstPort, TestFrame.port, UInt16(size - 34), 0]
    let words = [0x0800] + Self.header(size: size) + udp + [TestFrame.magic, stream]
    for (i, word) in words.enumerated() {
      unsafe frame.storeBytes(of: word.bigEndian, toByteOffset: 12 + 2 * i, as: UInt16.self)
    }
    for i in 60..<max(60, size) {
      unsafe frame.storeBytes(of: UInt8(truncatingIfNeeded: i), toByteOffset: i, as: UInt8.self)
    }
    unsafe number(frame, flow: 0, sequence: 0, time: 0)
  }

  /// Makes a frame that `write` has written another one of the same stream.
  ///
  /// - Parameters:
  ///   - frame: What `write` has filled.
  ///   - flow: Below `TestFrame.maximumFlows`.
  ///   - sequence: The number within the flow.
  ///   - time: Nanoseconds of the monotonic clock.
  @inlinable @inline(__always)
  public func number(
    _ frame: UnsafeMutableRawPointer, flow: Int, sequence: UInt64, time: UInt64
  ) {
    let flow = UInt16(truncatingIfNeeded: flow)
    // RFC 1624: only the low half of the source address changes what the IP checksum covers.
    let added = sum &+ UInt32(flow)
    let checksum = ~UInt16(truncatingIfNeeded: (added & 0xFFFF) &+ (added >> 16))
    unsafe frame.storeBytes(of: checksum.bigEndian, toByteOffset: 24, as: UInt16.self)
    unsafe frame.storeBytes(of: flow.bigEndian, toByteOffset: 28, as: UInt16.self)
    unsafe frame.storeBytes(of: (0x8000 | flow).bigEndian, toByteOffset: 34, as: UInt16.self)
    unsafe frame.storeBytes(of: sequence.bigEndian, toByteOffset: 46, as: UInt64.self)
    // One store for six bytes of time: the two before them are the end of the number.
    let end = sequence << 48 | time & 0xFFFF_FFFF_FFFF
    unsafe frame.storeBytes(of: end.bigEndian, toByteOffset: 52, as: UInt64.self)
  }
}
