/// Where a device is on the PCI bus: `0000:03:00.0`.
public struct PCIAddress: Equatable, Hashable, Sendable, CustomStringConvertible {
  /// The domain, bus, device and function, in this order.
  private let numbers: [Int]

  /// Parses `0000:03:00.0` or, in domain 0, `03:00.0`; nil when it is neither.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard let slot = parts.last?.split(separator: ".", omittingEmptySubsequences: false),
      slot.count == 2, parts.count == 2 || parts.count == 3
    else { return nil }
    let fields = (parts.count == 2 ? ["0"] : []) + parts.dropLast() + slot
    let limits = [0xFFFF_FFFF, 0xFF, 0x1F, 7]
    numbers = zip(fields, limits).compactMap { field, limit in
      // Int's own parser takes a sign.
      guard field.allSatisfy(\.isHexDigit), let number = Int(field, radix: 16) else { return nil }
      return number <= limit ? number : nil
    }
    if numbers.count < 4 { return nil }
  }

  /// The long form, as the kernel writes it.
  public var description: String {
    let fields = zip(numbers, [4, 2, 2, 1]).map { hexadecimal($0, $1) }
    return "\(fields[0]):\(fields[1]):\(fields[2]).\(fields[3])"
  }
}

extension PCIIdentity: CustomStringConvertible {
  /// An identity from its two numbers.
  public init(_ vendor: UInt16, _ device: UInt16) { self.init(vendor: vendor, device: device) }

  /// `8086:10fb`, as lspci prints it.
  public var description: String { "\(hexadecimal(vendor, 4)):\(hexadecimal(device, 4))" }
}

/// Lower case digits, with zeros before them up to `width`.
func hexadecimal(_ number: some BinaryInteger, _ width: Int) -> String {
  let digits = String(number, radix: 16)
  return String(repeating: "0", count: max(0, width - digits.count)) + digits
}
