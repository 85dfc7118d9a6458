/// The bit that says whose a descriptor is: it is the device's while the bit is as the device's lap has it.
///
/// Laps count from 0, and begin with 1 in the bit; it changes with each.
enum Vmxnet3Generation {
  /// The bit of a ring with 2^`shift` entries at its use number `use`, counted from the start.
  @inline(__always) static func bit(of use: Int, shift: Int) -> UInt64 {
    ~UInt64(truncatingIfNeeded: use &>> shift) & 1
  }
}

/// A receive descriptor: the address of a buffer, then this word.
enum Vmxnet3ReceiveDescriptor {
  /// GEN is bit 31; BTYPE, bit 14, is 0: the buffer is for the beginning of a frame.
  static let generationShift: UInt64 = 31

  /// A buffer of `size` bytes, at most 16,383: the field has 14 bits.
  static func word(size: Int) -> UInt64 { UInt64(min(size, 0x3FFF)) }
}

/// What the device writes about a buffer that it has filled: two words.
enum Vmxnet3ReceiveCompletion {
  /// EOP and SOP, in the first word: the last and the first buffer of a frame.
  static let end: UInt64 = 1 << 14
  static let start: UInt64 = 1 << 15
  /// rxdIdx and rqID, in the first word.
  static let place: UInt64 = 0x03FF_0FFF

  /// The first word's place of descriptor 0 of ring 1 of receive queue `queue`.
  static func place(queue: Int) -> UInt64 { UInt64(queue) << 16 }

  /// Whether these are the words of a whole, good frame.
  ///
  /// It has from the 14 bytes of an Ethernet header to `longest` + 14 bytes.
  @inline(__always) static func isWhole(_ low: UInt64, _ high: UInt64, longest: UInt32) -> Bool {
    // ERR is the bit above the 14 of the length: with it, the length is too long.
    low & (start | end) == start | end
      && (UInt32(truncatingIfNeeded: high) & 0x7FFF) &- 14 <= longest
  }

  /// LEN: the bytes in this buffer, in the second word.
  @inline(__always) static func length(_ high: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: high) & 0x3FFF
  }
}

/// The second word of a transmit descriptor, and what the device writes when frames are sent.
enum Vmxnet3TransmitDescriptor {
  /// GEN.
  static let generationShift: UInt64 = 14
  /// CQ: a completion is wanted, for this frame and all before it.
  static let completion: UInt64 = 1 << 45

  /// A frame of `length` bytes in one buffer (EOP).
  ///
  /// The field has 14 bits, and 0 stands for 16,384: a frame without a byte becomes one with a single byte,
  /// or the device would read what is behind its buffer.
  @inline(__always) static func command(length: UInt32) -> UInt64 {
    UInt64(length == 0 ? 1 : length & 0x3FFF) | 1 << 44
  }

  /// txdIdx of a completion: the last descriptor of the frame.
  @inline(__always) static func index(_ low: UInt64) -> Int { Int(low & 0xFFF) }
}
