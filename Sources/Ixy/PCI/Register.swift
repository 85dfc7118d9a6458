/// The value of a register, in terms that a programmer thinks in.
public protocol RegisterValue {
  /// What a register that holds `bits` means.
  init(bits: UInt32)
  /// What to write.
  var bits: UInt32 { get }
}

extension UInt32: RegisterValue {
  /// A register that is a plain number.
  public init(bits: UInt32) { self = bits }
  /// The number.
  public var bits: UInt32 { self }

  /// The field in a range of bits, moved down to bit 0.
  ///
  /// Setting it leaves all other bits as they are; the new value must fit.
  public subscript(field: ClosedRange<Int>) -> UInt32 {
    get { self >> field.lowerBound & Self.mask(field) }
    set {
      precondition(newValue <= Self.mask(field), "value wider than its field")
      self = self & ~(Self.mask(field) << field.lowerBound) | newValue << field.lowerBound
    }
  }

  private static func mask(_ field: ClosedRange<Int>) -> UInt32 {
    UInt32.max >> (31 - UInt32(field.upperBound - field.lowerBound))
  }
}

extension RegisterValue where Self: OptionSet, RawValue == UInt32 {
  /// The flags that are set.
  public init(bits: UInt32) { self.init(rawValue: bits) }
  /// The flags that are set.
  public var bits: UInt32 { rawValue }
}

/// Where a register is, and what its value means.
public struct Register<Value: RegisterValue>: Sendable {
  /// Bytes from the start of the BAR.
  public let offset: Int

  /// A register `offset` bytes into its BAR.
  public init(at offset: Int) { self.offset = offset }
}
