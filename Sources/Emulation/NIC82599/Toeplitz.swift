import CIxy

/// Receive-side scaling: which queue a frame goes to (reference, section 5; descriptors, section 4).
@safe final class ReceiveSideScaling {
  // SAFETY: `entries` is a power of two, and an index is masked with one less. A packet type stands
  // for headers that are in the frame, and so are ports that are not 0.
  /// Bits of MRQC: which fields are hashed.
  private enum Field {
    static let tcpIPv4: UInt32 = 1 << 16
    static let ipv4: UInt32 = 1 << 17
    static let tcpIPv6Extended: UInt32 = 1 << 18
    static let ipv6Extended: UInt32 = 1 << 19
    static let ipv6: UInt32 = 1 << 20
    static let tcpIPv6: UInt32 = 1 << 21
    static let udpIPv4: UInt32 = 1 << 22
    static let udpIPv6: UInt32 = 1 << 23
    static let udpIPv6Extended: UInt32 = 1 << 24
  }

  /// Whether frames are spread at all.
  private(set) var isOn = false
  private var fields: UInt32 = 0
  private var queueMask: UInt8 = 0
  /// The entries of RETA and ERETA: 128 of 4 bits, and on the X550 512 of 6 bits (initialization reference,
  /// section 9).
  private let redirection: UnsafeMutablePointer<UInt8>
  private let entries: Int
  private let hash = ToeplitzHash()

  init(hasWideTable: Bool) {
    entries = hasWideTable ? 512 : 128
    unsafe redirection = .allocate(capacity: entries)
    unsafe redirection.initialize(repeating: 0, count: entries)
  }

  deinit { unsafe redirection.deallocate() }

  /// Takes the registers in.
  func refresh(_ registers: RegisterFile) {
    let mrqc = registers[EngineRegister.mrqc]
    fields = mrqc
    // MRQE. The modes with pools and traffic classes are there as far as pool and class 0 go, in
    // which the low bits of an entry choose the queue.
    switch mrqc & 0xF {
    case 0x1, 0x4, 0x5: queueMask = entries == 512 ? 63 : 15
    case 0xA: queueMask = 3
    case 0xB: queueMask = 1
    default:
      isOn = false
      return
    }
    isOn = true
    for i in 0..<(entries / 4) {
      let word = registers[i < 32 ? EngineRegister.reta(i) : EngineRegister.ereta(i - 32)]
      for j in 0..<4 {
        unsafe redirection[4 * i + j] = UInt8(truncatingIfNeeded: word >> (8 * j))
      }
    }
    hash.setKey((0..<10).map { registers[EngineRegister.rssrk($0)] })
  }

  /// The hash of a frame, its type as descriptors report it, and the queue; type 0 goes to queue 0.
  @inline(__always)
  func choose(
    _ frame: UnsafeRawPointer, _ headers: FrameHeaders, network: Int
  ) -> (queue: Int, type: UInt32, hash: UInt32) {
    let (type, hasPorts) = type(of: headers)
    if type == 0 { return (0, 0, 0) }
    let isIPv4 = headers.packetType & FrameHeaders.Kind.ipv4 != 0
    let size = isIPv4 ? 8 : 32
    var value = unsafe hash(frame + network + (isIPv4 ? 12 : 8), size, from: 0)
    if hasPorts { unsafe value ^= hash(frame + headers.ports, 4, from: size) }
    return unsafe (Int(redirection[Int(value) & (entries - 1)] & queueMask), type, value)
  }

  /// The most that is enabled for a frame: with ports, or the addresses alone.
  ///
  /// DATASHEET-UNSEEN: how the three types of IPv6 with extension headers differ from the plain ones. Here
  /// they are used where the plain ones are off, with the addresses of the main header.
  @inline(__always)
  private func type(of headers: FrameHeaders) -> (type: UInt32, hasPorts: Bool) {
    let kind = headers.packetType
    let (hasTCP, hasUDP) =
      headers.ports == 0
      ? (false, false) : (kind & FrameHeaders.Kind.tcp != 0, kind & FrameHeaders.Kind.udp != 0)
    if kind & FrameHeaders.Kind.ipv4 != 0 {
      if hasTCP && fields & Field.tcpIPv4 != 0 { return (1, true) }
      if hasUDP && fields & Field.udpIPv4 != 0 { return (7, true) }
      return (fields & Field.ipv4 != 0 ? 2 : 0, false)
    }
    if kind & FrameHeaders.Kind.ipv6 == 0 { return (0, false) }
    if hasTCP && fields & Field.tcpIPv6 != 0 { return (3, true) }
    if hasUDP && fields & Field.udpIPv6 != 0 { return (8, true) }
    if hasTCP && fields & Field.tcpIPv6Extended != 0 { return (6, true) }
    if hasUDP && fields & Field.udpIPv6Extended != 0 { return (9, true) }
    if fields & Field.ipv6 != 0 { return (5, false) }
    return (fields & Field.ipv6Extended != 0 ? 4 : 0, false)
  }
}

/// The Toeplitz hash (descriptor reference, 4.1): for every set bit of the input, the 32 bits of the key
/// from there on, all added without carry.
///
/// A table per byte of input has the sum for each value of that byte.
@safe final class ToeplitzHash {
  // SAFETY: there is a table for each byte of the longest input, which the precondition keeps to,
  // and an entry for each value of a byte.
  /// IPv6 addresses and ports.
  private static let longestInput = 36
  private let tables = UnsafeMutablePointer<UInt32>.allocate(capacity: 256 * longestInput)
  private var key: [UInt32] = []

  init() { unsafe tables.initialize(repeating: 0, count: 256 * Self.longestInput) }

  deinit { unsafe tables.deallocate() }

  /// Uses the key in the ten words of RSSRK, the first byte in the lowest bits of the first word.
  func setKey(_ words: [UInt32]) {
    if words == key { return }
    key = words
    let bytes = words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    }
    for position in 0..<Self.longestInput {
      let following = bytes[position..<position + 5].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      let table = unsafe tables + 256 * position
      for value in 1..<256 {
        // The lowest set bit adds its part of the key to the value without it.
        let bit = value.trailingZeroBitCount
        unsafe table[value] =
          unsafe table[value & (value - 1)] ^ UInt32(truncatingIfNeeded: following >> (bit + 1))
      }
    }
  }

  /// The part of the hash that `count` bytes give when they are at `position` of the input.
  @inline(__always)
  func callAsFunction(_ bytes: UnsafeRawPointer, _ count: Int, from position: Int) -> UInt32 {
    precondition(position >= 0 && count >= 0 && position + count <= Self.longestInput)
    var sum: UInt32 = 0
    var table = unsafe tables + 256 * position
    for i in 0..<count {
      unsafe sum ^= table[Int(bytes.load(fromByteOffset: i, as: UInt8.self))]
      unsafe table += 256
    }
    return sum
  }
}
