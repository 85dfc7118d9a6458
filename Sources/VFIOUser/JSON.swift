/// The part of JSON that capabilities need, read from bytes that nobody vouches for.
enum JSON: Equatable {
  case null
  case bool(Bool)
  /// A whole number from 0 to 2^64 - 1.
  case number(UInt64)
  /// Any other number, kept as it was written.
  case otherNumber(String)
  case string(String)
  case array([JSON])
  case object([String: JSON])

  /// Capabilities are two levels deep.
  ///
  /// Without a limit, a long row of brackets overflows the stack.
  static let maxDepth = 8

  /// Parses one value with nothing but white space around it; nil when the bytes are anything else.
  init?(parsing bytes: some Collection<UInt8>) {
    var parser = JSONParser(rest: Array(bytes)[...])
    guard let value = parser.value(depth: 0), parser.next() == nil else { return nil }
    self = value
  }

  /// The member of an object; nil for anything else.
  subscript(key: String) -> JSON? {
    if case .object(let members) = self { members[key] } else { nil }
  }
}

private struct JSONParser {
  var rest: ArraySlice<UInt8>

  /// The first byte that is not white space; it stays.
  mutating func next() -> UInt8? {
    rest = rest.drop { [0x20, 0x09, 0x0A, 0x0D].contains($0) }
    return rest.first
  }

  /// Takes a byte, white space before it included; false when another one is there.
  mutating func take(_ byte: Unicode.Scalar) -> Bool {
    guard next() == UInt8(ascii: byte) else { return false }
    rest.removeFirst()
    return true
  }

  mutating func value(depth: Int) -> JSON? {
    guard depth < JSON.maxDepth, let first = next() else { return nil }
    switch Character(Unicode.Scalar(first)) {
    case "{": return object(depth: depth)
    case "[": return array(depth: depth)
    case "\"": return string().map(JSON.string)
    case "-", "0"..."9": return number()
    case "t": return word("true", .bool(true))
    case "f": return word("false", .bool(false))
    case "n": return word("null", .null)
    default: return nil
    }
  }

  private mutating func word(_ text: String, _ value: JSON) -> JSON? {
    guard rest.starts(with: text.utf8) else { return nil }
    rest = rest.dropFirst(text.utf8.count)
    return value
  }

  private mutating func number() -> JSON? {
    let letters = rest.prefix { "+-.eE0123456789".utf8.contains($0) }
    rest = rest.dropFirst(letters.count)
    let text = String(decoding: letters, as: UTF8.self)
    if text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt64(text) {
      return .number(number)
    }
    return Double(text) == nil ? nil : .otherNumber(text)
  }

  private mutating func object(depth: Int) -> JSON? {
    var members: [String: JSON] = [:]
    _ = take("{")
    if take("}") { return .object([:]) }
    repeat {
      guard next() == UInt8(ascii: "\""), let key = string(), take(":"),
        let value = value(depth: depth + 1)
      else { return nil }
      members[key] = value
    } while take(",")
    return take("}") ? .object(members) : nil
  }

  private mutating func array(depth: Int) -> JSON? {
    var elements: [JSON] = []
    _ = take("[")
    if take("]") { return .array([]) }
    repeat {
      guard let value = value(depth: depth + 1) else { return nil }
      elements.append(value)
    } while take(",")
    return take("]") ? .array(elements) : nil
  }

  private mutating func string() -> String? {
    _ = take("\"")
    var text: [UInt8] = []
    while let byte = rest.popFirst() {
      switch byte {
      case UInt8(ascii: "\""): return String(validating: text, as: UTF8.self)
      case 0..<0x20: return nil
      case UInt8(ascii: "\\"):
        guard let escaped = escape() else { return nil }
        text += Array(String(escaped).utf8)
      default: text.append(byte)
      }
    }
    return nil
  }

  /// What follows a backslash.
  ///
  /// Half of a surrogate pair is no scalar, and is refused.
  private mutating func escape() -> Unicode.Scalar? {
    switch rest.popFirst().map({ Character(Unicode.Scalar($0)) }) {
    case "\"": return "\""
    case "\\": return "\\"
    case "/": return "/"
    case "b": return "\u{8}"
    case "f": return "\u{C}"
    case "n": return "\n"
    case "r": return "\r"
    case "t": return "\t"
    case "u":
      let digits = String(decoding: rest.prefix(4), as: UTF8.self)
      rest = rest.dropFirst(4)
      guard digits.utf8.count == 4, digits.allSatisfy(\.isHexDigit) else { return nil }
      return UInt32(digits, radix: 16).flatMap(Unicode.Scalar.init)
    default: return nil
    }
  }
}
