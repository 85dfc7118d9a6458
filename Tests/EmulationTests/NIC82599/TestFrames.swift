/// Frames and their checksums, made and checked without the code under test.
enum TestFrames {
  static let peer: [UInt8] = [0x02, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE]

  /// An Ethernet frame to the rig's own address, padded to 60 bytes.
  static func ethernet(
    to destination: [UInt8] = EngineRig.mac, tag: UInt16? = nil, type: UInt16 = 0x88B5,
    _ payload: [UInt8], pad: Bool = true
  ) -> [UInt8] {
    var frame = destination + peer
    if let tag { frame += big(UInt16(0x8100)) + big(tag) }
    frame += big(type) + payload
    if pad && frame.count < 60 { frame += [UInt8](repeating: 0, count: 60 - frame.count) }
    return frame
  }

  /// A frame of `count` bytes with a pattern in it.
  static func plain(_ count: Int, seed: UInt8 = 0, to destination: [UInt8] = EngineRig.mac)
    -> [UInt8]
  {
    ethernet(
      to: destination, (0..<max(0, count - 14)).map { UInt8(truncatingIfNeeded: $0) &* 7 &+ seed },
      pad: false)
  }

  static func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }
  static func big(_ value: UInt32) -> [UInt8] {
    big(UInt16(value >> 16)) + big(UInt16(value & 0xFFFF))
  }

  static func word(_ bytes: [UInt8], _ at: Int) -> Int { Int(bytes[at]) << 8 | Int(bytes[at + 1]) }
  static func double(_ bytes: [UInt8], _ at: Int) -> Int {
    word(bytes, at) << 16 | word(bytes, at + 2)
  }

  /// The Internet checksum's sum, by the book: big-endian 16-bit words, carries added back.
  static func sum(_ bytes: [UInt8]) -> UInt16 {
    var total = 0
    for i in stride(from: 0, to: bytes.count, by: 2) {
      total += Int(bytes[i]) << 8 | (i + 1 < bytes.count ? Int(bytes[i + 1]) : 0)
    }
    while total > 0xFFFF { total = total & 0xFFFF + total >> 16 }
    return UInt16(total)
  }

  static func pseudoHeader(_ source: [UInt8], _ target: [UInt8], _ kind: UInt8, _ length: Int)
    -> [UInt8]
  {
    source + target + big(UInt32(length)) + [0, 0, 0, kind]
  }

  static func ipv4(
    _ source: [UInt8], _ target: [UInt8], _ kind: UInt8, _ payload: [UInt8],
    fragment: UInt16 = 0x4000, options: [UInt8] = [], identification: UInt16 = 0x1234
  ) -> [UInt8] {
    let header = 20 + options.count
    var bytes: [UInt8] = [0x40 | UInt8(header / 4), 0]
    bytes += big(UInt16(header + payload.count)) + big(identification) + big(fragment)
    bytes += [64, kind, 0, 0] + source + target + options
    bytes.replaceSubrange(10..<12, with: big(~sum(bytes)))
    return bytes + payload
  }

  static func ipv6(
    _ source: [UInt8], _ target: [UInt8], _ kind: UInt8, _ payload: [UInt8]
  ) -> [UInt8] {
    [0x60, 0, 0, 0] + big(UInt16(payload.count)) + [kind, 64] + source + target + payload
  }

  static func tcp(
    _ source: [UInt8], _ target: [UInt8], ports: (UInt16, UInt16) = (1000, 80),
    sequence: UInt32 = 0x1020_3040, flags: UInt16 = 0x18, options: [UInt8] = [], _ data: [UInt8]
  ) -> [UInt8] {
    var bytes = big(ports.0) + big(ports.1) + big(sequence) + big(UInt32(0x5060_7080))
    bytes += big(UInt16((20 + options.count) / 4) << 12 | flags) + [0xFF, 0xFF, 0, 0, 0, 0]
    bytes += options + data
    let check = ~sum(pseudoHeader(source, target, 6, bytes.count) + bytes)
    bytes.replaceSubrange(16..<18, with: big(check))
    return bytes
  }

  static func udp(
    _ source: [UInt8], _ target: [UInt8], ports: (UInt16, UInt16) = (1000, 53), _ data: [UInt8],
    hasChecksum: Bool = true
  ) -> [UInt8] {
    var bytes = big(ports.0) + big(ports.1) + big(UInt16(8 + data.count)) + [0, 0] + data
    if hasChecksum {
      let check = ~sum(pseudoHeader(source, target, 17, bytes.count) + bytes)
      bytes.replaceSubrange(6..<8, with: big(check == 0 ? 0xFFFF : check))
    }
    return bytes
  }

  /// A check of 32 bits, one bit at a time.
  static func crc(_ bytes: [UInt8], polynomial: UInt32 = 0xEDB8_8320) -> UInt32 {
    var state = UInt32.max
    for byte in bytes {
      for bit in 0..<8 {
        let mixed = (state ^ UInt32(byte) >> UInt32(bit)) & 1
        state = state >> 1 ^ (mixed == 1 ? polynomial : 0)
      }
    }
    return ~state
  }

  static func little(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * UInt32($0))) }
  }

  static let v4a: [UInt8] = [10, 1, 2, 3]
  static let v4b: [UInt8] = [10, 1, 2, 4]
  static let v6a: [UInt8] = [0xFE, 0x80] + [UInt8](repeating: 0, count: 13) + [1]
  static let v6b: [UInt8] = [0xFE, 0x80] + [UInt8](repeating: 0, count: 13) + [2]
}
