/// PCI config space of the card: header and capabilities (reference, section 1.3; observed, section 1).
struct ConfigSpace {
  static let size = 4096

  /// Fixed offsets that drivers and the base code rely on.
  private enum At {
    static let command = 0x04
    static let status = 0x06
    static let powerControl = 0x44
    static let msiControl = 0x52
    static let msixControl = 0x72
    static let deviceControl = 0xA8
  }

  /// What a write asks of the card beside the new value.
  enum Request { case nothing, reset }

  private let initial: [UInt8]
  private var bytes: [UInt8]
  /// The bits that a write changes.
  private let writable: [UInt8]
  /// The bits that a written 1 clears.
  private let clearable: [UInt8]

  /// INTx is asserted: Status, bit 3.
  var isInterruptPending = false

  init(device: UInt32, subsystem: UInt32, serial: UInt64, barSizes: [Int]) {
    var layout = ConfigLayout()
    layout.header(device: device, subsystem: subsystem, barSizes: barSizes)
    layout.capabilities(serial: serial)
    (initial, bytes) = (layout.bytes, layout.bytes)
    (writable, clearable) = (layout.writable, layout.clearable)
  }

  /// The card may start DMA: bus mastering is on and the power state is D0.
  var allowsDMA: Bool { bytes[At.command] & 1 << 2 != 0 && isAwake }
  /// The power state is D0.
  var isAwake: Bool { bytes[At.powerControl] & 3 == 0 }
  /// Every MSI-X message is masked (Message Control, bit 14).
  var masksAllVectors: Bool { bytes[At.msixControl + 1] & 0xC0 == 0xC0 }

  /// How interrupts go out.
  var delivery: InterruptUnit.Delivery {
    if bytes[At.msixControl + 1] & 1 << 7 != 0 { return .vectors }
    if bytes[At.msiControl] & 1 != 0 { return .message }
    // Command, bit 10: interrupt disable.
    return bytes[At.command + 1] & 1 << 2 == 0 ? .line : .none
  }

  mutating func reset() { bytes = initial }

  /// A read of memory was answered with "unsupported request": Status, bit 13 (received master abort).
  mutating func noteMasterAbort() { bytes[At.status + 1] |= 1 << 5 }

  /// Reads 1, 2 or 4 bytes; 0 outside.
  func read(_ offset: Int, width: Int) -> UInt32 {
    guard isInside(offset, width) else { return 0 }
    var value: UInt32 = 0
    for i in 0..<width {
      var byte = bytes[offset + i]
      if offset + i == At.status, isInterruptPending { byte |= 1 << 3 }
      value |= UInt32(byte) << UInt32(8 * i)
    }
    return value
  }

  /// Writes 1, 2 or 4 bytes.
  mutating func write(_ value: UInt32, to offset: Int, width: Int) -> Request {
    guard isInside(offset, width) else { return .nothing }
    let wasAsleep = !isAwake
    var asksForReset = false
    for i in 0..<width {
      let (place, byte) = (offset + i, UInt8(truncatingIfNeeded: value >> UInt32(8 * i)))
      bytes[place] = bytes[place] & ~writable[place] | byte & writable[place]
      bytes[place] &= ~(byte & clearable[place])
      // Device Control, bit 15: function-level reset.
      if place == At.deviceControl + 1, byte & 1 << 7 != 0 { asksForReset = true }
    }
    // No_Soft_Reset is 0: waking up from D3 is a reset.
    return asksForReset || wasAsleep && isAwake ? .reset : .nothing
  }

  private func isInside(_ offset: Int, _ width: Int) -> Bool {
    offset >= 0 && (1...4).contains(width) && offset <= Self.size - width
  }
}
