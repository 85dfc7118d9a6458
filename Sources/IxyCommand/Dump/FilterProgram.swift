/// A packet filter as tcpdump's compiler writes it: classic BPF (McCanne and Jacobson, USENIX 1993).
///
/// A machine with an accumulator A, an index X and 16 words of memory. It only jumps forward, so it ends.
struct FilterProgram {
  /// One instruction, as `struct bpf_insn` has it.
  struct Instruction {
    var code: UInt16
    var ifTrue: UInt8
    var ifFalse: UInt8
    var value: UInt32
  }

  private let instructions: [Instruction]

  /// A program; nil when it jumps behind its end or does not end with a return.
  init?(_ instructions: [Instruction]) {
    for (i, instruction) in instructions.enumerated() where instruction.code & 7 == 5 {
      let isAlways = instruction.code == 0x05
      let farthest =
        isAlways ? Int(instruction.value) : Int(max(instruction.ifTrue, instruction.ifFalse))
      if i + 1 + farthest >= instructions.count { return nil }
    }
    guard let last = instructions.last, last.code & 7 == 6 else { return nil }
    self.instructions = instructions
  }

  /// Whether the program returns more than 0 for a frame; what reads behind its end returns 0.
  func accepts(_ frame: UnsafeRawBufferPointer) -> Bool {
    var (a, x): (UInt32, UInt32) = (0, 0)
    var memory = InlineArray<16, UInt32>(repeating: 0)
    var next = 0
    while next < instructions.count {
      let (code, k) = (instructions[next].code, instructions[next].value)
      next += 1
      switch code {
      // Loads: a word, a half-word, a byte; at a place, or that far behind X.
      case 0x20, 0x28, 0x30, 0x40, 0x48, 0x50:
        let size = code & 0x18 == 0 ? 4 : code & 0x18 == 0x08 ? 2 : 1
        let offset = Int(k) + (code & 0x40 == 0 ? 0 : Int(x))
        guard let value = unsafe Self.load(frame, offset, size) else { return false }
        a = value
      case 0x00: a = k
      case 0x01: x = k
      case 0x60: a = memory[Int(k & 15)]
      case 0x61: x = memory[Int(k & 15)]
      case 0x80: a = UInt32(frame.count)
      case 0x81: x = UInt32(frame.count)
      // The length of an IPv4 header, from its first byte.
      case 0xB1:
        guard let value = unsafe Self.load(frame, Int(k), 1) else { return false }
        x = value & 0xF * 4
      // Stores
      case 0x02: memory[Int(k & 15)] = a
      case 0x03: memory[Int(k & 15)] = x
      // Arithmetic, with a constant or with X
      case let code where code & 7 == 4:
        guard let result = Self.calculate(code, a, code & 8 == 0 ? k : x) else { return false }
        a = result
      // Jumps
      case 0x05: next += Int(k)
      case let code where code & 7 == 5:
        let holds = Self.compare(code, a, code & 8 == 0 ? k : x)
        next += Int(holds ? instructions[next - 1].ifTrue : instructions[next - 1].ifFalse)
      // Returns
      case 0x06: return k > 0
      case 0x16: return a > 0
      // A to X, X to A
      case 0x07: x = a
      case 0x87: a = x
      default: return false
      }
    }
    return false
  }

  private static func load(_ frame: UnsafeRawBufferPointer, _ offset: Int, _ size: Int) -> UInt32? {
    guard offset + size <= frame.count else { return nil }
    var value: UInt32 = 0
    for i in 0..<size { value = unsafe value << 8 | UInt32(frame[offset + i]) }
    return value
  }

  private static func calculate(_ code: UInt16, _ a: UInt32, _ b: UInt32) -> UInt32? {
    switch code & 0xF0 {
    case 0x00: a &+ b
    case 0x10: a &- b
    case 0x20: a &* b
    case 0x30: b == 0 ? nil : a / b
    case 0x40: a | b
    case 0x50: a & b
    case 0x60: a << b
    case 0x70: a >> b
    case 0x80: 0 &- a
    case 0x90: b == 0 ? nil : a % b
    case 0xA0: a ^ b
    default: nil
    }
  }

  private static func compare(_ code: UInt16, _ a: UInt32, _ b: UInt32) -> Bool {
    switch code & 0xF0 {
    case 0x10: a == b
    case 0x20: a > b
    case 0x30: a >= b
    case 0x40: a & b != 0
    default: false
    }
  }
}
