/// What a card found wrong with its own accesses to memory (Status, config space offset 6).
///
/// An IOMMU that refuses a read answers like an address that is not there. A write gets no answer: of those
/// only the IOMMU's own log tells (dmesg).
public struct PCIFaults: OptionSet, Sendable, CustomStringConvertible {
  /// The bits of the register.
  public let rawValue: UInt16
  /// Bit 8: data came damaged.
  public static let dataParity = Self(rawValue: 1 << 8)
  /// Bit 12: the target of a read gave up.
  public static let targetAbort = Self(rawValue: 1 << 12)
  /// Bit 13: nobody answered to an address.
  public static let masterAbort = Self(rawValue: 1 << 13)
  static let all: Self = [.dataParity, .targetAbort, .masterAbort]

  /// Faults by the bits of the register.
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// What happened, for the user.
  public var description: String {
    if isEmpty { return "no fault" }
    if self == .dataParity { return "data from memory came damaged" }
    return "a read of memory was refused: a descriptor points where nothing is mapped for the card"
  }
}

extension PCIDevice {
  /// The faults since the last call; those that cannot be cleared are there until the next reset.
  public func takeFaults() throws(DeviceError) -> PCIFaults {
    let status = UInt16(truncatingIfNeeded: try readConfig(6, width: 2))
    if status == .max { throw .gone(device: name) }
    let faults = PCIFaults(rawValue: status).intersection(.all)
    if !faults.isEmpty { try writeConfig(UInt32(faults.rawValue), to: 6, width: 2) }
    return faults
  }
}
