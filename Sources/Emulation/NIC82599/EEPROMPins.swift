/// The EEPROM's own four pins, which software may drive one bit at a time (EEC; reference, section 3).
///
/// DPDK reads the first word so. The commands are those of any serial EEPROM: eight bits, an address of
/// sixteen for some, then data, the highest bit first; bits go in when the clock rises and come out when
/// it falls. Each command ends when the chip is deselected.
struct EEPROMPins {
  /// EEC: SK (0), CS (1), which selects while it is low, DI (2), DO (3).
  private static let clock: UInt32 = 1 << 0
  private static let deselect: UInt32 = 1 << 1
  private static let input: UInt32 = 1 << 2
  private static let output: UInt32 = 1 << 3
  /// EEC: REQ (6) asks for the pins, GNT (7) grants them, at once.
  private static let request: UInt32 = 1 << 6
  private static let grant: UInt32 = 1 << 7

  private enum Command: UInt32 {
    case writeStatus = 0x01
    case write = 0x02
    case read = 0x03
    case writeDisable = 0x04
    case readStatus = 0x05
    case writeEnable = 0x06
  }

  private var isClockHigh = false
  private var isSelected = false
  private var mayWrite = false
  /// Bits that came in since the chip was selected.
  private var count = 0
  private var shift: UInt32 = 0
  private var command: Command?
  private var address = 0
  private var isOutputHigh = false

  /// Takes over what was written to EEC; what EEC reads then.
  mutating func drive(_ value: UInt32, _ words: inout [UInt16]) -> UInt32 {
    let isGranted = value & Self.request != 0
    let selected = isGranted && value & Self.deselect == 0
    let clockHigh = value & Self.clock != 0
    if selected != isSelected { select(selected) }
    if isSelected, clockHigh != isClockHigh {
      if clockHigh { take(value & Self.input != 0, &words) } else { give(words) }
    }
    isClockHigh = clockHigh
    return value & ~(Self.output | Self.grant) | (isGranted ? Self.grant : 0)
      | (isOutputHigh ? Self.output : 0)
  }

  private mutating func select(_ isOn: Bool) {
    if !isOn, command == .write { mayWrite = false }
    (isSelected, command, isOutputHigh) = (isOn, nil, false)
    (count, shift, address) = (0, 0, 0)
  }

  /// The clock rose: a bit comes in.
  private mutating func take(_ bit: Bool, _ words: inout [UInt16]) {
    shift = shift << 1 | (bit ? 1 : 0)
    count += 1
    if count == 8 {
      command = Command(rawValue: shift & 0xFF)
      if command == .writeEnable { mayWrite = true }
      if command == .writeDisable { mayWrite = false }
    } else if count == 24 {
      address = Int(shift & 0xFFFF)
    } else if command == .write, count > 24, count % 8 == 0 {
      if mayWrite { store(UInt8(truncatingIfNeeded: shift), &words) }
      address = (address + 1) & 0xFFFF
    }
  }

  /// The clock fell: a bit goes out, of the byte at `address` or of the status, which is "ready".
  private mutating func give(_ words: [UInt16]) {
    guard command == .read, count >= 24 else {
      isOutputHigh = false
      return
    }
    let bit = (count - 24) % 8
    if count > 24, bit == 0 { address = (address + 1) & 0xFFFF }
    let word = words.indices.contains(address / 2) ? words[address / 2] : 0xFFFF
    let byte = address % 2 == 0 ? word & 0xFF : word >> 8
    isOutputHigh = byte >> UInt16(7 - bit) & 1 == 1
  }

  private func store(_ byte: UInt8, _ words: inout [UInt16]) {
    guard words.indices.contains(address / 2) else { return }
    let word = words[address / 2]
    words[address / 2] =
      address % 2 == 0 ? word & 0xFF00 | UInt16(byte) : word & 0xFF | UInt16(byte) << 8
  }
}
