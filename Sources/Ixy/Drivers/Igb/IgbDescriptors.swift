/// What the 82576 writes into the second half of an advanced receive descriptor.
///
/// It is read once, as one 64-bit load: status, errors and length belong together.
enum IgbReceiveDescriptor {
  /// DD: the device is done with it.
  static let done: UInt64 = 1 << 0
  /// EOP: the last descriptor of its frame.
  static let endOfPacket: UInt64 = 1 << 1
  /// CE, SE, SEQ, CXE and RXE: the frame is damaged.
  ///
  /// Bits 29 and 30 say that a checksum in it is wrong, which is the application's business.
  static let errors: UInt64 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31

  /// Whether the descriptor is done and holds a whole frame: from the 14 bytes of an Ethernet header to
  /// `longest` + 14 bytes, which its buffer holds.
  @inline(__always) static func isWhole(_ word: UInt64, longest: UInt32) -> Bool {
    word & (done | endOfPacket | errors) == done | endOfPacket && length(word) &- 14 <= longest
  }

  /// PKT_LEN: the bytes in this buffer.
  @inline(__always) static func length(_ word: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: word >> 32) & 0xFFFF
  }
}

/// The second half of an advanced transmit data descriptor.
enum IgbTransmitDescriptor {
  /// RS: the device sets DD when the frame is sent.
  static let reportStatus: UInt64 = 1 << 27
  /// DD, in STA.
  static let done: UInt64 = 1 << 32

  /// A frame of `length` bytes in one buffer: DTYP = 3 (data), EOP, IFCS and DEXT; PAYLEN and DTALEN
  /// are both the length.
  @inline(__always) static func command(length: UInt32) -> UInt64 {
    UInt64(length) << 46 | UInt64(length) | 0x2330_0000
  }
}
