import Ixy

/// The other capture format: blocks that begin and end with their length.
///
/// Source: draft-ietf-opsawg-pcapng. A section says in which byte order it was written; it names its
/// interfaces, and each frame says from which of them it is.
enum PcapNG {
  static let section: UInt32 = 0x0A0D_0D0A
  static let interface: UInt32 = 1
  static let simplePacket: UInt32 = 3
  static let enhancedPacket: UInt32 = 6
  static let byteOrder: UInt32 = 0x1A2B_3C4D

  /// What a section says of one of its interfaces.
  struct Interface {
    var snapLength: Int
    /// Its times, in ticks a second.
    var ticks: UInt64 = 1_000_000
    /// Seconds that its times begin after 1970.
    var start: UInt64 = 0

    /// Nanoseconds since 1970.
    func nanoseconds(_ time: UInt64) -> UInt64 {
      let rest = (time % ticks).multipliedFullWidth(by: 1_000_000_000)
      let fraction = ticks.dividingFullWidth(rest).quotient
      return (time / ticks &+ start) &* 1_000_000_000 &+ fraction
    }
  }
}

extension PcapReader {
  /// The frame in the next block that has one; nil at the end of the file.
  func nextBlock() throws(DeviceError) -> Record? {
    while try fill(12) {
      if word(0) == PcapNG.section {
        isSwapped = word(8).byteSwapped == PcapNG.byteOrder ? !isSwapped : isSwapped
        guard word(8) == PcapNG.byteOrder else { throw damaged("a section has no byte order") }
        interfaces = []
      }
      let length = Int(word(4))
      guard length >= 12, length % 4 == 0, length <= Self.bufferSize else {
        throw damaged("behind frame \(count) there is a block of \(length) bytes")
      }
      guard try fill(length) else { throw damaged("it ends inside a block") }
      guard word(length - 4) == UInt32(length) else {
        throw damaged("behind frame \(count) there is a block with two lengths")
      }
      switch word(0) {
      case PcapNG.interface: try readInterface(length)
      case PcapNG.enhancedPacket: return try enhancedPacket(length)
      case PcapNG.simplePacket: return try simplePacket(length)
      default: break
      }
      skip(length)
    }
    if isAtEnd { return nil }
    throw damaged("it ends inside a block")
  }

  private func enhancedPacket(_ length: Int) throws(DeviceError) -> Record {
    guard length >= 32, let interfaces, Int(word(8)) < interfaces.count else {
      throw damaged("frame \(count + 1) is from an interface that is not there")
    }
    let (kept, original) = (Int(word(20)), Int(word(24)))
    guard kept <= length - 32 else {
      throw damaged("frame \(count + 1) claims \(kept) bytes in a block of \(length)")
    }
    let time = interfaces[Int(word(8))].nanoseconds(UInt64(word(12)) << 32 | UInt64(word(16)))
    return record(at: 28, kept, of: original, time: time, end: length)
  }

  /// A frame of the first interface, without a time.
  private func simplePacket(_ length: Int) throws(DeviceError) -> Record {
    guard length >= 16, let interface = interfaces?.first else {
      throw damaged("frame \(count + 1) is from an interface that is not there")
    }
    let original = Int(word(8))
    let kept = min(original, interface.snapLength, length - 16)
    return record(at: 12, kept, of: original, time: 0, end: length)
  }

  private func readInterface(_ length: Int) throws(DeviceError) {
    guard length >= 20 else { throw damaged("an interface has too few bytes") }
    let link = isSwapped ? word(8) >> 16 : word(8) & 0xFFFF
    guard link == PcapFormat.ethernet else {
      throw foreign("its frames are of link type \(link), not Ethernet (1)")
    }
    let limit = word(12) == 0 ? PcapFormat.maximumLength : Int(word(12))
    var interface = PcapNG.Interface(snapLength: limit)
    var offset = 16
    // Options: a code and a length of two bytes each, then the value, filled up to four bytes.
    while offset + 8 <= length - 4 {
      let head = word(offset)
      let (code, size) = isSwapped ? (head >> 16, head & 0xFFFF) : (head & 0xFFFF, head >> 16)
      if code == 0 || offset + 4 + Int(size) > length - 4 { break }
      if code == 9, size == 1 {
        interface.ticks = try ticks(of: UInt8(truncatingIfNeeded: firstByte(offset + 4)))
      } else if code == 14, size == 8 {
        let (first, second) = (UInt64(word(offset + 4)), UInt64(word(offset + 8)))
        interface.start = isSwapped ? first << 32 | second : second << 32 | first
      }
      offset += 4 + (Int(size) + 3) & ~3
    }
    interfaces?.append(interface)
  }

  private func firstByte(_ offset: Int) -> UInt32 {
    isSwapped ? word(offset) >> 24 : word(offset) & 0xFF
  }

  /// The option if_tsresol: a power of ten, or with the upper bit of two.
  private func ticks(of resolution: UInt8) throws(DeviceError) -> UInt64 {
    let exponent = Int(resolution & 0x7F)
    if resolution & 0x80 != 0, exponent < 64 { return 1 << UInt64(exponent) }
    guard resolution & 0x80 == 0, exponent < 20 else {
      throw damaged("an interface has a clock of resolution \(resolution)")
    }
    return (0..<exponent).reduce(1) { ticks, _ in ticks * 10 }
  }
}
