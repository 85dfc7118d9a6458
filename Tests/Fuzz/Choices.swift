/// Everything that a run decides, taken from its input byte by byte: the same input is the same run.
///
/// After its end all bytes are 0, which decides for what is harmless.
final class Choices {
  private let bytes: [UInt8]
  private var place = 0
  /// Makes the bytes of a burst.
  private var burst: Random?
  private var word: (bits: UInt64, left: Int) = (0, 0)

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var isAtEnd: Bool { burst == nil && place >= bytes.count }

  /// Runs `body` with bytes without end, which follow from two of the input: a short input can do much.
  func inBurst(_ body: () -> Void) {
    burst = Random(seed: number(bytes: 2))
    word.left = 0
    body()
    burst = nil
  }

  func byte() -> UInt8 {
    if burst != nil { return burstByte() }
    if isAtEnd { return 0 }
    defer { place += 1 }
    return bytes[place]
  }

  private func burstByte() -> UInt8 {
    if word.left == 0 { word = (burst?.next() ?? 0, 8) }
    defer { word = (word.bits >> 8, word.left - 1) }
    return UInt8(truncatingIfNeeded: word.bits)
  }

  /// A number of `count` bytes.
  func number(bytes count: Int) -> UInt64 {
    (0..<count).reduce(0) { n, _ in n << 8 | UInt64(byte()) }
  }

  /// A number from 0 up to `limit`.
  func below(_ limit: Int) -> Int {
    limit <= 1 ? 0 : Int(number(bytes: limit <= 256 ? 1 : 3)) % limit
  }

  /// True in about so many of 256 cases.
  func isOdd(_ cases: Int) -> Bool { Int(byte()) > 255 - cases }

  func pick<Value>(_ values: [Value]) -> Value { values[below(values.count)] }

  /// A value for a field: mostly one at a limit, sometimes any.
  func field() -> UInt64 {
    switch byte() % 8 {
    case 0: number(bytes: 1)
    case 1: number(bytes: 2)
    case 2: number(bytes: 4)
    case 3: number(bytes: 8)
    case 4: 1 << UInt64(byte() % 64)
    case 5: 1 << UInt64(byte() % 64) &- 1
    default:
      pick([0, 1, 12, 13, 14, 59, 60, 63, 64, 65, 1514, 1518, 1519, 2048, 2049, 0xFFFF, .max])
    }
  }

  /// Up to seven frames for a card to receive, some of them longer than it may take.
  func frames() -> [[UInt8]] {
    (0..<below(8)).map { _ in
      let size = pick([60, 60, 64, 200, 1514, 1518, 1519, 4000])
      return [0x52, 0x54, 0, 0x12, 0x34, 0x56] + [UInt8](repeating: byte(), count: size - 6)
    }
  }

  /// What is left, for those who read bytes.
  func rest() -> [UInt8] {
    defer { place = bytes.count }
    return Array(bytes.dropFirst(place))
  }
}

/// Numbers that depend on a seed alone (SplitMix64).
struct Random: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// An input for one run, of up to `limit` bytes; mostly long ones.
  mutating func input(upTo limit: Int) -> [UInt8] {
    let count = Int(next() % UInt64(limit)) + 1
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + 8)
    while bytes.count < count {
      let word = next()
      for i in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> (8 * UInt64(i)))) }
    }
    return bytes
  }
}
