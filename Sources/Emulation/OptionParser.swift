import Ixy

/// Takes `name=value,name=value` apart; each mistake is a message that quotes the text.
struct OptionParser {
  /// What the user wrote.
  private let text: String

  init(_ text: String) { self.text = text }

  /// An error about this text.
  func refuse(_ found: String, _ advice: String) -> DeviceError {
    .refused("Read \"\(text)\"", found: found, advice: advice)
  }

  /// The parts between single commas, at least one; a double comma is a comma.
  static func split(_ text: Substring) -> [String] {
    var parts = [""]
    var rest = text
    while let character = rest.popFirst() {
      if character != "," {
        parts[parts.count - 1].append(character)
      } else if rest.first == "," {
        rest.removeFirst()
        parts[parts.count - 1].append(",")
      } else {
        parts.append("")
      }
    }
    return parts
  }

  /// The options in these words.
  func options(_ words: [String]) throws(DeviceError) -> Options {
    var values: [String: String] = [:]
    for word in words {
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty else {
        throw refuse("\"\(word)\" is no option", "Options are name=value, with a comma between.")
      }
      let name = String(parts[0])
      if parts[1].isEmpty { throw refuse("option \(name) has no value", "Options are name=value.") }
      guard values.updateValue(String(parts[1]), forKey: name) == nil else {
        throw refuse("option \(name) is given twice", "Leave one out.")
      }
    }
    return Options(parser: self, values: values)
  }
}

/// The options that a user gave and nobody has taken yet.
struct Options {
  let parser: OptionParser
  private var values: [String: String]
  /// Every name that was asked for: what is allowed.
  private var known: [String] = []

  init(parser: OptionParser, values: [String: String]) {
    self.parser = parser
    self.values = values
  }

  /// The value of an option; nil when it was not given.
  mutating func take(_ name: String) throws(DeviceError) -> String? {
    known.append(name)
    return values.removeValue(forKey: name)
  }

  /// The value of an option that must be given.
  mutating func require(_ name: String, of wire: String) throws(DeviceError) -> String {
    if let value = try take(name) { return value }
    throw parser.refuse(
      "wire \(wire) needs the option \(name)=", "As in \(wire),\(name)=VALUE.")
  }

  mutating func takeMACAddress() throws(DeviceError) -> MACAddress? {
    guard let value = try take("mac") else { return nil }
    guard let address = MACAddress(value), !address.isMulticast, address.bits != 0 else {
      throw parser.refuse(
        "mac=\(value) is no address of a card",
        "It is six bytes, the first of them even: 02:00:00:00:00:01.")
    }
    return address
  }

  mutating func takeNumber(_ name: String, in range: ClosedRange<UInt64>) throws(DeviceError)
    -> UInt64?
  {
    guard let value = try take(name) else { return nil }
    // UInt64's own parser takes a sign.
    let isPlain = value.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    guard isPlain, let number = UInt64(value), range.contains(number) else {
      let limits =
        range.upperBound == .max
        ? "from \(range.lowerBound)" : "from \(range.lowerBound) to \(range.upperBound)"
      throw parser.refuse("\(name)=\(value) is out of range", "Give a whole number \(limits).")
    }
    return number
  }

  mutating func takeFaults() throws(DeviceError) -> LossyWire.Faults {
    var faults = LossyWire.Faults()
    // To lose or swap every frame would be another wire.
    if let period = try takeNumber("lose", in: 2...1_000_000_000) { faults.lose = Int(period) }
    if let period = try takeNumber("swap", in: 2...1_000_000_000) { faults.swap = Int(period) }
    return faults
  }

  mutating func takeRate() throws(DeviceError) -> FrameRate? {
    guard let value = try take("rate") else { return nil }
    guard let rate = FrameRate(value) else {
      throw parser.refuse(
        "rate=\(value) is no rate", "Give frames or bits a second: 1Mpps, 500Mbit, 20000.")
    }
    return rate
  }

  mutating func takeInterfaceName() throws(DeviceError) -> String? {
    guard let value = try take("name") else { return nil }
    // What the kernel's dev_valid_name refuses; "%" would be a pattern.
    let isBad =
      value.utf8.count > 15 || value == "." || value == ".."
      || value.contains { $0 == "/" || $0 == ":" || $0 == "%" || $0.isWhitespace }
    if isBad {
      throw parser.refuse(
        "\"\(value)\" cannot name an interface",
        "A name has up to 15 bytes, without space, slash, colon or percent sign.")
    }
    return value
  }

  /// Throws when there is an option that nobody has asked for.
  func checkNoneLeft(of wire: String) throws(DeviceError) {
    guard let name = values.keys.min() else { return }
    let allowed = known.filter { $0 != "wire" }.sorted().joined(separator: ", ")
    throw parser.refuse(
      "wire \(wire) has no option \"\(name)\"", "The options of this wire are \(allowed).")
  }
}
