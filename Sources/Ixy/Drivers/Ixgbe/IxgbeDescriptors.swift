/// What the 82599 writes into the second half of an advanced receive descriptor (§7.1.6).
///
/// It is read once, as one 64-bit load: status, errors and length belong together.
@usableFromInline enum IxgbeReceiveDescriptor {
  /// DD: the device is done with it.
  @inlinable @inline(__always) static var done: UInt64 { 1 << 0 }
  /// EOP: the last descriptor of its frame.
  @inlinable @inline(__always) static var endOfPacket: UInt64 { 1 << 1 }
  /// RXE: the MAC found an error in the frame.
  @inlinable @inline(__always) static var error: UInt64 { 1 << 29 }

  /// The length of a frame without the 14 bytes of its Ethernet header, when the descriptor is done and
  /// holds all of one good frame; else more than any buffer can hold.
  @inlinable @inline(__always) static func payload(_ word: UInt64) -> UInt64 {
    // PKT_LEN is in bits 32 to 47. Whatever is wrong below leaves bits that the swap makes the high ones:
    // one comparison tells all.
    let rest = word & (0xFFFF << 32 | error | endOfPacket | done) &- (14 << 32 | endOfPacket | done)
    return rest << 32 | rest >> 32
  }
}

/// The second half of an advanced transmit data descriptor (§7.2.3.2.4).
@usableFromInline enum IxgbeTransmitDescriptor {
  /// RS: the device sets DD when the frame is sent.
  @inlinable @inline(__always) static var reportStatus: UInt64 { 1 << 27 }
  /// DD, in STA.
  @inlinable @inline(__always) static var done: UInt64 { 1 << 32 }

  /// A frame of `length` bytes in one buffer: DTYP = 3 (data), EOP, IFCS and DEXT; PAYLEN and DTALEN
  /// are both the length.
  @inlinable @inline(__always) static func command(length: UInt32) -> UInt64 {
    // Added and not joined by `|`: that is one instruction less.
    UInt64(length) << 46 &+ UInt64(length) &+ 0x2330_0000
  }
}
