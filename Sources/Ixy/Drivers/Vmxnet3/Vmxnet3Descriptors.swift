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
  static func word(size: Int) -> UInt64 {
    UInt64(truncatingIfNeeded: min(size, 0x3FFF))
  }
}

/// What the device writes about a buffer that it has filled: two words.
enum Vmxnet3ReceiveCompletion {
  /// EOP and SOP, in the first word: the last and the first buffer of a frame.
  static let end: UInt64 = 1 << 14
  static let start: UInt64 = 1 << 15
  /// rxdIdx and rqID, in the first word.
  static let place: UInt64 = 0x03FF_0FFF

  /// The bits of the first word that `whole` is about.
  @inline(__always) static var wholeMask: UInt64 { place | start | end }

  /// The first word of a whole frame in one descriptor of ring 1 of receive queue `queue`.
  @inline(__always) static func whole(queue: Int, descriptor: Int) -> UInt64 {
    UInt64(truncatingIfNeeded: queue << 16 | descriptor) | start | end
  }

  /// The length of a frame without the 14 bytes of its Ethernet header, when the second word is of the device's
  /// lap and tells of no error; else more than any buffer can hold.
  @inline(__always) static func payload(_ high: UInt64, lap: UInt64) -> UInt64 {
    // GEN is bit 63, ERR the bit above the 14 of the length: one comparison tells all.
    high & (1 << 63 | 0x7FFF) &- (lap << 63 | 14)
  }
}

/// The second word of a transmit descriptor, and what the device writes when frames are sent.
enum Vmxnet3TransmitDescriptor {
  /// GEN.
  private static let generationShift: UInt64 = 14
  /// CQ: a completion is wanted, for this frame and all before it.
  static let completion: UInt64 = 1 << 45

  /// A frame in one buffer (EOP), in the lap that use number `use` of a ring with 2^`shift` entries is in.
  @inline(__always) static func frame(at use: Int, shift: Int) -> UInt64 {
    Vmxnet3Generation.bit(of: use, shift: shift) << generationShift | 1 << 44
  }

  /// LEN of a frame.
  ///
  /// The field has 14 bits, and 0 stands for 16,384: a frame without a byte becomes one with a single byte,
  /// or the device would read what is behind its buffer.
  @inline(__always) static func length(_ bytes: UInt32) -> UInt64 {
    UInt64((bytes &+ (bytes == 0 ? 1 : 0)) & 0x3FFF)
  }

  /// txdIdx of a completion: the last descriptor of the frame.
  @inline(__always) static func index(_ low: UInt64) -> Int { Int(low & 0xFFF) }
}
