/// An Ethernet address: six bytes, in the order they go over the wire.
public struct MACAddress: Equatable, Hashable, Sendable, CustomStringConvertible {
  /// The first byte of the address in bits 47 to 40, the last in bits 7 to 0.
  public let bits: UInt64

  /// An address from its lower 48 bits, first byte highest.
  public init(bits: UInt64) { self.bits = bits & 0xFFFF_FFFF_FFFF }

  /// Parses `02:00:00:00:00:01`; nil when it is not six hexadecimal bytes.
  public init?(_ text: some StringProtocol) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    // The integer's own parser takes a sign.
    let bytes = parts.compactMap { part in
      part.utf8.count == 2 && part.allSatisfy(\.isHexDigit) ? UInt8(part, radix: 16) : nil
    }
    guard bytes.count == 6, parts.count == 6 else { return nil }
    self.init(bits: bytes.reduce(0) { $0 << 8 | UInt64($1) })
  }

  /// Byte `i` of the address, 0 to 5, in wire order.
  public subscript(i: Int) -> UInt8 { UInt8(truncatingIfNeeded: bits >> (8 * UInt64(5 - i))) }

  /// Whether the group bit is set: multicast or broadcast.
  public var isMulticast: Bool { self[0] & 1 != 0 }

  /// Six pairs of lower case digits.
  public var description: String {
    (0..<6).map { hexadecimal(self[$0], 2) }.joined(separator: ":")
  }
}
