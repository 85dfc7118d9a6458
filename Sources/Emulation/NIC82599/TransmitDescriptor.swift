/// The second half of a transmit descriptor, where its kind, length and commands are (descriptor reference,
/// section 2).
struct TransmitCommand {
  var bits: UInt64

  static let endOfPacket: UInt64 = 1 << 24
  static let insertFCS: UInt64 = 1 << 25
  /// IC: legacy only.
  static let insertChecksum: UInt64 = 1 << 26
  static let reportStatus: UInt64 = 1 << 27
  /// DEXT: not legacy.
  static let isAdvanced: UInt64 = 1 << 29
  static let insertTag: UInt64 = 1 << 30
  static let segment: UInt64 = 1 << 31
  static let done: UInt64 = 1 << 32
  /// POPTS.
  static let insertHeaderChecksum: UInt64 = 1 << 40
  static let insertTransportChecksum: UInt64 = 1 << 41

  private static let typeField: UInt64 = 0xF << 20
  private static let contextType: UInt64 = 2 << 20
  private static let dataType: UInt64 = 3 << 20

  @inline(__always)
  func has(_ flags: UInt64) -> Bool { bits & flags != 0 }

  /// The bytes of the buffer: DTALEN.
  @inline(__always)
  var length: Int { Int(bits & 0xFFFF) }
  /// Legacy only: where the checksum goes (CSO), where its sum begins (CSS), and the VLAN tag.
  var checksumOffset: Int { Int(bits >> 16 & 0xFF) }
  var checksumStart: Int { Int(bits >> 40 & 0xFF) }
  var tag: UInt16 { UInt16(truncatingIfNeeded: bits >> 48) }
  /// IDX, of which only the lowest bit names a context.
  var context: Int { Int(bits >> 36 & 1) }

  var isContext: Bool {
    bits & (Self.isAdvanced | Self.typeField) == Self.isAdvanced | Self.contextType
  }

  /// Whether it has a buffer: legacy, or advanced data.
  var isData: Bool {
    !has(Self.isAdvanced) || bits & Self.typeField == Self.dataType
  }

  /// TSE, which legacy descriptors lack.
  var isSegmented: Bool { has(Self.isAdvanced) && has(Self.segment) }

  /// Whether it is a whole frame that goes out as it is, with an FCS: nearly all of them.
  @inline(__always)
  var isPlain: Bool {
    let always = Self.endOfPacket | Self.insertFCS | Self.insertTag | Self.isAdvanced
    let offloads = Self.segment | Self.insertHeaderChecksum | Self.insertTransportChecksum
    let wanted = Self.endOfPacket | Self.insertFCS
    if bits & (always | Self.typeField | offloads) == wanted | Self.isAdvanced | Self.dataType {
      return true
    }
    return bits & (always | Self.insertChecksum) == wanted
  }
}

/// What a context descriptor says (descriptor reference, 2.3).
struct TransmitContext {
  /// What comes after the IP header: L4T.
  enum Transport {
    case udp, tcp, sctp, reserved
  }

  var low: UInt64 = 0
  var high: UInt64 = 0

  var networkLength: Int { Int(low & 0x1FF) }
  var linkLength: Int { Int(low >> 9 & 0x7F) }
  var tag: UInt16 { UInt16(truncatingIfNeeded: low >> 16) }
  var transport: Transport { [.udp, .tcp, .sctp, .reserved][Int(high >> 11 & 3)] }
  var transportLength: Int { Int(high >> 40 & 0xFF) }
  var maximumSegment: Int { Int(high >> 48) }

  /// Where the IP header ends.
  var transportStart: Int { linkLength + networkLength }
}
