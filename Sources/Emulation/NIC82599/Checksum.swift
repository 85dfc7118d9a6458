/// The checksums of a frame: the Internet's sum, Ethernet's and SCTP's cyclic ones.
enum Checksum {
  // SAFETY: callers give as many bytes as there are; no read goes beyond `count`.
  /// The one's complement sum of `count` bytes, not yet folded, in the byte order of memory.
  ///
  /// A byte left over at the end counts as the first of its pair. Sums may be added with `add` as
  /// long as each but the last is over an even number of bytes.
  @inline(__always)
  static func sum(_ start: UnsafeRawPointer, _ count: Int) -> UInt64 {
    var total: UInt64 = 0
    var at = unsafe start
    var left = count
    while left >= 32 {
      total = unsafe add(total, at.loadUnaligned(as: UInt64.self))
      total = unsafe add(total, at.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      total = unsafe add(total, at.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
      total = unsafe add(total, at.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
      unsafe at += 32
      left -= 32
    }
    while left >= 8 {
      total = unsafe add(total, at.loadUnaligned(as: UInt64.self))
      unsafe at += 8
      left -= 8
    }
    if left >= 4 {
      total = unsafe add(total, UInt64(at.loadUnaligned(as: UInt32.self)))
      unsafe at += 4
      left -= 4
    }
    if left >= 2 {
      total = unsafe add(total, UInt64(at.loadUnaligned(as: UInt16.self)))
      unsafe at += 2
      left -= 2
    }
    if left > 0 { total = unsafe add(total, UInt64(at.load(as: UInt8.self))) }
    return total
  }

  /// The one's complement sum of two sums.
  @inline(__always)
  static func add(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (sum, carry) = a.addingReportingOverflow(b)
    return sum &+ (carry ? 1 : 0)
  }

  /// Whether a sum over data and its checksum says that they fit; sums are never 0 here.
  ///
  /// Folding keeps the remainder, and all bits set means 0.
  @inline(__always)
  static func isGood(_ sum: UInt64) -> Bool { sum % 0xFFFF == 0 }

  /// A sum in 16 bits, in the byte order of memory.
  @inline(__always)
  static func fold(_ sum: UInt64) -> UInt16 {
    var folded = (sum & 0xFFFF_FFFF) &+ (sum >> 32)
    folded = (folded & 0xFFFF) &+ (folded >> 16)
    folded = (folded & 0xFFFF) &+ (folded >> 16)
    return UInt16(truncatingIfNeeded: (folded & 0xFFFF) &+ (folded >> 16))
  }
}

/// A cyclic redundancy check of 32 bits, reflected, a byte at a time.
struct CyclicCheck {
  private let table: [UInt32]

  /// Ethernet's frame check sequence, IEEE 802.3.
  static let ethernet = CyclicCheck(polynomial: 0xEDB8_8320)
  /// SCTP's checksum, CRC-32C.
  static let sctp = CyclicCheck(polynomial: 0x82F6_3B78)

  private init(polynomial: UInt32) {
    table = (0..<256).map { byte in
      (0..<8).reduce(UInt32(byte)) { value, _ in
        value & 1 == 0 ? value >> 1 : value >> 1 ^ polynomial
      }
    }
  }

  /// The check of `count` bytes; little-endian where it is stored.
  func callAsFunction(_ start: UnsafeRawPointer, _ count: Int) -> UInt32 {
    unsafe ~extend(.max, start, count)
  }

  /// The state after `count` more bytes; it starts as all ones and ends inverted.
  func extend(_ state: UInt32, _ start: UnsafeRawPointer, _ count: Int) -> UInt32 {
    var state = state
    for i in 0..<count {
      let byte = unsafe start.load(fromByteOffset: i, as: UInt8.self)
      state = state >> 8 ^ table[Int(UInt8(truncatingIfNeeded: state) ^ byte)]
    }
    return state
  }
}
