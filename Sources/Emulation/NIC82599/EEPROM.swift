import Ixy

/// The card's EEPROM and its read and write registers (reference, section 3.1; observed, section 4).
struct EEPROM {
  /// 1,024 words, as EEC's SIZE field says.
  static let size = 1024
  /// The sum of words 0 to 3F must come to this.
  private static let checksum: UInt16 = 0xBABA

  private(set) var words = [UInt16](repeating: 0xFFFF, count: Self.size)
  private var pins = EEPROMPins()
  private var readRegister: UInt32 = 0
  private var writeRegister: UInt32 = 0

  /// The content of a card with this address.
  init(mac: MACAddress, family: NIC82599.Family) {
    for place in 0..<0x40 { words[place] = 0 }
    // An X550's driver takes word 2 for a pointer to a section.
    if family != .x550 {
      for i in 0..<3 { words[i] = UInt16(mac[2 * i]) | UInt16(mac[2 * i + 1]) << 8 }
    }
    for pointer in 0x03...0x0E { words[pointer] = 0xFFFF }  // sections, all absent
    // Drivers of the X540 and X550 may add words 40 and 41 to the sum.
    (words[0x40], words[0x41]) = (0, 0)
    words[0x27] = 0xFFFF  // no world-wide name
    words[0x28] = 0xFFFF  // no SAN address
    words[0x2C] = 0x0081  // any SFP is allowed; no crosstalk check
    words[0x2D] = 0x8000  // version, which Linux shows as 0x80000208
    words[0x2E] = 0x0208
    firmware()
    partNumber("000000-000")
    moduleSetup()
    words[0x3F] = Self.checksum &- words[0..<0x3F].reduce(0, &+)
  }

  /// Firmware block: no LESM, and a version over 5, older ones are called pre-production.
  private mutating func firmware() {
    words[0x0F] = 0x0090
    words[0x94] = 0x00A0
    words[0xA7] = 0x0006
  }

  /// Printed board assembly: a pointer to a length in words, which counts itself, and characters.
  private mutating func partNumber(_ text: String) {
    words[0x15] = 0xFAFA
    words[0x16] = 0x0080
    let bytes = Array(text.utf8)
    words[0x80] = UInt16(1 + bytes.count / 2)
    for i in 0..<bytes.count / 2 {
      words[0x81 + i] = UInt16(bytes[2 * i]) << 8 | UInt16(bytes[2 * i + 1])
    }
  }

  /// What drivers write to CORECTL for each type of module: pairs of type and pointer, then the end.
  private mutating func moduleSetup() {
    words[0x2B] = 0x0060
    let list: [UInt16] = [0, 3, 0x70, 4, 0x70, 5, 0x70, 6, 0x70, 0xFFFF]
    for (i, word) in list.enumerated() { words[0x60 + i] = word }
    for (i, word) in [0 as UInt16, 0x1234, 0xFFFF].enumerated() { words[0x70 + i] = word }
  }

  // MARK: EERD and EEWR

  /// START (0), DONE (1), address (15:2), data (31:16).
  var readValue: UInt32 { readRegister }
  var writeValue: UInt32 { writeRegister }

  /// A write to EERD: the word is there at once.
  mutating func startRead(_ value: UInt32) {
    readRegister = value & 0xFFFC
    guard value & 1 != 0 else { return }
    readRegister |= UInt32(word(Int(value >> 2 & 0x3FFF))) << 16 | 2
  }

  /// A write to EEWR: the word is stored at once.
  mutating func startWrite(_ value: UInt32) {
    writeRegister = value & 0xFFFF_FFFC | 2
    let place = Int(value >> 2 & 0x3FFF)
    if value & 1 != 0, place < words.count { words[place] = UInt16(value >> 16) }
  }

  /// A write to EEC; what EEC reads then.
  mutating func drivePins(_ value: UInt32) -> UInt32 { pins.drive(value, &words) }

  /// The card was reset: what was going on is over, the words stay.
  mutating func reset() {
    pins = EEPROMPins()
    (readRegister, writeRegister) = (0, 0)
  }

  /// A word; all ones beyond the end.
  func word(_ place: Int) -> UInt16 { words.indices.contains(place) ? words[place] : 0xFFFF }
}
