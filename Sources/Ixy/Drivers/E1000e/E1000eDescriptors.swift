/// What the 82574 writes into the second half of an extended receive descriptor.
///
/// It is read once, as one 64-bit load: status, errors and length belong together.
enum E1000eReceiveDescriptor {
  /// DD: the device is done with it.
  static let done: UInt64 = 1 << 0
  /// EOP: the last descriptor of its frame.
  static let endOfPacket: UInt64 = 1 << 1
  /// CE, SE, SEQ, CXE and RXE: the frame is damaged.
  ///
  /// TCPE and IPE, bits 29 and 30, say that a checksum in it is wrong, which is the application's business.
  static let errors: UInt64 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31

  /// Whether the descriptor is done and holds a whole frame: from the 14 bytes of an Ethernet header to
  /// `longest` + 14 bytes, which its buffer holds.
  @inline(__always) static func isWhole(_ word: UInt64, longest: UInt32) -> Bool {
    word & (done | endOfPacket | errors) == done | endOfPacket && length(word) &- 14 <= longest
  }

  /// LENGTH: the bytes in this buffer.
  @inline(__always) static func length(_ word: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: word >> 32) & 0xFFFF
  }
}

/// The second half of an extended transmit data descriptor.
enum E1000eTransmitDescriptor {
  /// RS: the device sets DD when the frame is sent.
  static let reportStatus: UInt64 = 1 << 27
  /// DD, in STA.
  static let done: UInt64 = 1 << 32

  /// A frame of `length` bytes in one buffer: DTYP = 1 (data), EOP, IFCS and DEXT; DTALEN is the length.
  @inline(__always) static func command(length: UInt32) -> UInt64 {
    UInt64(length) | 0x2310_0000
  }
}
