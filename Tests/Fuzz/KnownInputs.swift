import Glibc

/// One line of a list of inputs that have found something.
struct KnownInput {
  let target: Target
  let bytes: [UInt8]

  /// All of a list, where lines that begin with # are comments.
  static func all(in path: String) throws -> [KnownInput] {
    let text = String(decoding: try contents(of: path), as: UTF8.self)
    let lines = text.split(separator: "\n").filter { !$0.hasPrefix("#") }
    if lines.isEmpty { throw InputError(description: "\(path) has no inputs") }
    return try lines.map { line in
      guard let input = KnownInput(line) else {
        throw InputError(description: "\(path): no target and input: \(line.prefix(80))")
      }
      return input
    }
  }

  private init?(_ line: Substring) {
    let words = line.split(separator: " ")
    guard words.count == 2, let target = Target.find(String(words[0])) else { return nil }
    let digits = words[1].compactMap(\.hexDigitValue)
    guard digits.count == words[1].count, digits.count % 2 == 0 else { return nil }
    self.target = target
    bytes = stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
  }
}

/// Why there is nothing to run.
struct InputError: Error, CustomStringConvertible {
  let description: String
}

/// The bytes of a file, of which there is at least one.
func contents(of path: String) throws -> [UInt8] {
  guard let file = fopen(path, "r") else {
    throw InputError(description: "\(path): \(String(cString: strerror(errno)))")
  }
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var block = [UInt8](repeating: 0, count: 1 << 16)
  while true {
    let count = fread(&block, 1, block.count, file)
    if count == 0 { break }
    bytes += block.prefix(count)
  }
  // A folder can be opened, too, but not read.
  if ferror(file) != 0 || bytes.isEmpty {
    throw InputError(description: "\(path) cannot be read, or is empty")
  }
  return bytes
}
