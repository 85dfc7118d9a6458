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

  /// Whether the descriptor is done and holds a whole frame: from the 14 bytes of an Ethernet header to
  /// `longest` + 14 bytes, which its buffer holds.
  @inlinable @inline(__always) static func isWhole(_ word: UInt64, longest: UInt32) -> Bool {
    word & (done | endOfPacket | error) == done | endOfPacket && length(word) &- 14 <= longest
  }

  /// PKT_LEN: the bytes in this buffer.
  @inlinable @inline(__always) static func length(_ word: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: word >> 32) & 0xFFFF
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
    UInt64(length) << 46 | UInt64(length) | 0x2330_0000
  }
}
