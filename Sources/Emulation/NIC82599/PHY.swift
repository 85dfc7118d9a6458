/// The 10GBASE-T transceiver of an X540 or X550, as far as drivers look (IEEE 802.3, clause 45).
///
/// It has devices with 65,536 registers each: an address cycle picks one, then it is read or written.
struct PHY {
  /// Its address on the bus.
  private static let port = 0

  /// The devices in it, by their number.
  private enum Device {
    static let pma = 1
    static let negotiation = 7
    /// PMA (1), PCS (3), PHY XS (4), auto-negotiation (7), two of the vendor's (30, 31).
    static let present: UInt32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 7 | 1 << 30 | 1 << 31
  }

  private let identifier: UInt32
  /// The register that the next access to each device means.
  private var addresses = [UInt16](repeating: 0, count: 32)
  private var written: [Int: UInt16] = [:]
  private var isUp = false

  init(identifier: UInt32) { self.identifier = identifier }

  mutating func reset() { self = PHY(identifier: identifier) }

  mutating func linkChanged(isUp: Bool) { self.isUp = isUp }

  /// The address cycle.
  mutating func setAddress(port: Int, device: Int, _ register: UInt16) {
    if isPresent(port, device) { addresses[device] = register }
  }

  /// Stores a value in the addressed register.
  mutating func write(port: Int, device: Int, _ value: UInt16) {
    guard isPresent(port, device) else { return }
    let register = addresses[device]
    // Control: reset (15) and, for negotiation, restart (9) clear themselves.
    let kept: UInt16 = register == 0 ? (device == Device.negotiation ? 0x7DFF : 0x7FFF) : .max
    written[key(device, register)] = value & kept
  }

  /// The addressed register; nil when nobody answers.
  mutating func read(port: Int, device: Int, thenIncrement: Bool) -> UInt16? {
    guard isPresent(port, device) else { return nil }
    defer { if thenIncrement { addresses[device] &+= 1 } }
    return value(device, addresses[device])
  }

  private func isPresent(_ port: Int, _ device: Int) -> Bool {
    port == Self.port && Device.present >> UInt32(device & 31) & 1 == 1
  }

  private func key(_ device: Int, _ register: UInt16) -> Int { device << 16 | Int(register) }

  private func value(_ device: Int, _ register: UInt16) -> UInt16 {
    switch (device, register) {
    case (Device.negotiation, 1): isUp ? 0x2D : 0x09  // able; complete, link up, partner able
    case (_, 1): isUp ? 0x06 : 0x02  // low power is possible; link up
    case (_, 2): UInt16(identifier >> 16)
    case (_, 3): UInt16(truncatingIfNeeded: identifier)
    case (Device.pma, 4): 0x31  // 10 Gb/s, 1 Gb/s, 100 Mb/s
    case (_, 5): UInt16(truncatingIfNeeded: Device.present)
    case (_, 6): UInt16(Device.present >> 16)
    case (_, 8): 0x8000  // there is a device
    case (Device.pma, 11): 0xA4  // 10GBASE-T, 1000BASE-T, 100BASE-TX
    case (Device.negotiation, 19): isUp ? 0x4D01 : 0  // the partner: both pauses
    case (Device.negotiation, 33): isUp ? 0x3800 : 0  // the partner: 10 Gb/s
    default: written[key(device, register)] ?? initial(device, register)
    }
  }

  private func initial(_ device: Int, _ register: UInt16) -> UInt16 {
    switch (device, register) {
    case (Device.negotiation, 0): 0x3000  // enabled
    case (Device.negotiation, 16): 0x0D01  // both pauses, 100 Mb/s
    case (Device.negotiation, 32): 0x1000  // 10 Gb/s
    default: 0
    }
  }
}
