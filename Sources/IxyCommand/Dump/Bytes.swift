/// Some bytes of a frame, read in network order; reading past the end throws.
struct Bytes {
  /// The end was reached.
  struct Truncated: Error {}

  private(set) var rest: ArraySlice<UInt8>

  init(_ bytes: some Collection<UInt8>) { rest = ArraySlice(Array(bytes)) }

  var count: Int { rest.count }

  /// The number in the 1 to 4 bytes at an offset; nothing is consumed.
  func number(_ offset: Int, _ size: Int) throws(Truncated) -> Int {
    guard offset >= 0, offset + size <= count else { throw Truncated() }
    let start = rest.startIndex + offset
    return rest[start..<start + size].reduce(0) { $0 << 8 | Int($1) }
  }

  func byte(_ offset: Int) throws(Truncated) -> Int { try number(offset, 1) }
  func short(_ offset: Int) throws(Truncated) -> Int { try number(offset, 2) }
  func word(_ offset: Int) throws(Truncated) -> Int { try number(offset, 4) }

  /// The bytes from an offset on.
  func dropping(_ count: Int) throws(Truncated) -> Bytes {
    guard count <= self.count else { throw Truncated() }
    var copy = self
    copy.rest = rest.dropFirst(count)
    return copy
  }

  /// At most the first `count` bytes.
  func prefix(_ count: Int) -> Bytes {
    var copy = self
    copy.rest = rest.prefix(max(0, count))
    return copy
  }

  /// `count` bytes at an offset.
  func slice(_ offset: Int, _ count: Int) throws(Truncated) -> ArraySlice<UInt8> {
    guard offset + count <= self.count else { throw Truncated() }
    return rest[(rest.startIndex + offset)..<(rest.startIndex + offset + count)]
  }
}
