import Testing

@testable import VFIOUser

/// VERSION: its JSON and what follows from it.
@Suite struct CapabilityTests {
  private func capabilities(_ json: String) throws -> Capabilities {
    try Capabilities(json: (Array(json.utf8) + [0])[...])
  }

  @Test func `what is absent keeps its default`() throws {
    let expected = Capabilities(maxFiles: 8, maxData: 1_048_576, writesMultiple: false)
    for json in ["{}", "{\"capabilities\":{}}", " { \"other\" : [1, {}] } "] {
      #expect(try capabilities(json) == expected)
    }
    #expect(try Capabilities(json: []) == expected)
  }

  @Test func `what QEMU sends is understood`() throws {
    let json = """
      {"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, \
      "max_data_xfer_size": 1048576, "migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, \
      "write_multiple": true}}
      """
    #expect(
      try capabilities(json)
        == Capabilities(maxFiles: 16, maxData: 1_048_576, writesMultiple: true))
  }

  @Test func `our own JSON is understood`() throws {
    #expect(try Capabilities(json: Capabilities.ours.json[...]) == Capabilities.ours)
  }

  @Test func `the reply's JSON fits into any room`() {
    for room in 0...200 {
      let json = Capabilities.ours.json(room: room)
      #expect(json.count <= room)
      #expect(json.isEmpty || json.last == 0 && JSON(parsing: json.dropLast()) != nil)
    }
  }

  @Test(arguments: [
    "", "{", "}", "[]", "null", "{]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1 \"b\":2}",
    "{} {}", "{\"capabilities\":1}", "{\"capabilities\":{\"max_msg_fds\":\"x\"}}",
    "{\"capabilities\":{\"max_msg_fds\":-1}}", "{\"capabilities\":{\"write_multiple\":1}}",
    "{\"a\":tru}", "{\"a\":1e}", "{\"a\":\"\\x\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"",
  ])
  func `JSON that is not an object of capabilities is refused`(json: String) {
    #expect(throws: Refusal.self) { try capabilities(json) }
  }

  @Test func `capabilities without a closing NUL are refused`() {
    #expect(throws: Refusal.self) { try Capabilities(json: Array("{}".utf8)[...]) }
  }

  @Test func `counts beyond all bounds are cut to a number that fits`() throws {
    let json = "{\"capabilities\":{\"max_msg_fds\":18446744073709551615}}"
    #expect(try capabilities(json).maxFiles == Int(Int32.max))
  }

  @Test func `values of each kind are parsed`() {
    let json = "{\"a\": [1, -2.5, true, false, null, \"\\u00e9\\n\\\"\"], \"b\": {\"c\": {}}}"
    let expected = JSON.object([
      "a": .array([
        .number(1), .otherNumber("-2.5"), .bool(true), .bool(false), .null, .string("é\n\""),
      ]),
      "b": .object(["c": .object([:])]),
    ])
    #expect(JSON(parsing: json.utf8) == expected)
  }

  @Test func `a row of brackets does not overflow the stack`() {
    let brackets = [UInt8](repeating: UInt8(ascii: "["), count: 1_000_000)
    #expect(JSON(parsing: brackets) == nil)
    let objects = String(repeating: "{\"a\":", count: 100_000)
    #expect(JSON(parsing: objects.utf8) == nil)
  }

  @Test func `random bytes are parsed or refused`() {
    var random = SeededRandom(seed: 1)
    let letters = Array("{}[]\":,\\u0019eE+-. truefalsn\n\u{1}".utf8) + [0xFF, 0xC3]
    for _ in 0..<20_000 {
      let size = Int.random(in: 0..<40, using: &random)
      let bytes = (0..<size).map { _ in letters.randomElement(using: &random) ?? 0 }
      _ = JSON(parsing: bytes)
    }
  }
}

/// Numbers that are the same for the same seed (SplitMix64).
struct SeededRandom: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return value ^ value >> 31
  }
}
