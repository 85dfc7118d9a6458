/// The way to an X550's firmware, which its EEPROM is behind: HICR and the buffer FLEX_MNG.
///
/// The reference (sections 3 and 9) names the registers; the one command is as Linux's driver sends it.
struct HostInterface {
  /// HICR: EN (0), C (1), SV (2).
  private static let (enabled, command, valid) = (1 as UInt32, 2 as UInt32, 4 as UInt32)
  private static let buffer = 0x15800
  private static let bufferWords = 448
  /// Read shadow RAM: byte address and byte count, both big-endian, in words 1 and 2; data from word 3.
  private static let readWords: UInt8 = 0x31
  private static let firstData = 3

  /// HICR; 0 where no firmware listens.
  private(set) var control: UInt32

  init(isEnabled: Bool) { control = isEnabled ? Self.enabled : 0 }

  /// A write to HICR: a command is over before software can look.
  mutating func write(_ value: UInt32, registers: RegisterFile, eeprom: EEPROM) {
    guard control & Self.enabled != 0, value & Self.command != 0 else { return }
    let isDone = Self.perform(registers, eeprom)
    control = Self.enabled | (isDone ? Self.valid : 0)
  }

  private static func perform(_ registers: RegisterFile, _ eeprom: EEPROM) -> Bool {
    guard UInt8(truncatingIfNeeded: registers[buffer]) == readWords else { return false }
    let place = Int(registers[buffer + 4].byteSwapped / 2)
    let count = Int(UInt16(truncatingIfNeeded: registers[buffer + 8]).byteSwapped / 2)
    guard count <= 2 * (bufferWords - firstData) else { return false }
    for i in 0..<(count + 1) / 2 {
      let low = eeprom.word(place + 2 * i)
      let high = 2 * i + 1 < count ? eeprom.word(place + 2 * i + 1) : 0
      registers[buffer + 4 * (firstData + i)] = UInt32(low) | UInt32(high) << 16
    }
    return true
  }
}
