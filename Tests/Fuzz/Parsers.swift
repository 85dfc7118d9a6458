import CIxy
import Emulation
import Glibc
import Ixy

@testable import VFIOUser

/// What users, files and peers write, and who reads it.
enum ParserTargets {
  /// Pieces of valid input, which random bytes would hardly ever be.
  private static let words = [
    "emu:", "82599", "x540", "x550", ",", ",,", "wire=", "generator", "sink", "loop", "tap", "pcap",
    "link", "dgram", "name=", "peer=", "in=", "out=", "local=", "remote=", "count=", "rate=",
    "size=",
    "flows=", "mac=", "0", "1", "60", "64", "1514", "16384", "18446744073709551615", "-1", "+1",
    "1e9",
    "Mpps", "kpps", "Gbit", "pps", ".", ":", "02:00:00:00:00:01", "0000:03:00.0", "ff", "=", "{",
    "}",
    "[", "]", "\"", "\\u0000", "null", "true", "capabilities", "max_msg_fds", "max_data_xfer_size",
    "vfio-user:", "/", "%", " ", "\u{0}", "é", "..", "ixy0",
  ]

  /// Every parser of text, with the same text.
  static func text(_ choices: Choices) throws -> Int {
    var bytes: [UInt8] = []
    while !choices.isAtEnd, bytes.count < 400 {
      if choices.isOdd(40) {
        bytes.append(choices.byte())
      } else {
        bytes += choices.pick(words).utf8
      }
    }
    let text = String(decoding: bytes, as: UTF8.self)
    _ = try? CardDescription(text)
    _ = try? CardDescription(CardDescription.prefix + text)
    _ = try? CardDescription(family: "82599", wire: text)
    if let rate = FrameRate(text) {
      let perSecond = rate.framesPerSecond(size: 60)
      precondition(perSecond > 0 && perSecond.isFinite, "a rate of \(perSecond)")
    }
    if let address = MACAddress(text) {
      precondition(MACAddress(address.description) == address, "\(address) is another one")
    }
    if let address = PCIAddress(text) {
      precondition(PCIAddress(address.description) == address, "\(address) is another one")
    }
    _ = JSON(parsing: bytes)
    _ = try? Version(payload: [0, 0, 1, 0] + bytes).capabilities
    return 8
  }

  /// A capture file whose every field may be wrong, played and looked at.
  static func pcap(_ choices: Choices) throws -> Int {
    var bytes: [UInt8] = []
    let magics: [UInt32] = [0xA1B2_C3D4, 0xA1B2_3C4D, 0xD4C3_B2A1, 0x4D3C_B2A1, 0x0A0D_0D0A]
    let isSwapped = choices.isOdd(128)
    func append(_ value: UInt64) {
      let word = UInt32(truncatingIfNeeded: value)
      bytes.append(field: isSwapped ? word.byteSwapped : word)
    }
    append(choices.isOdd(16) ? choices.field() : UInt64(choices.pick(magics)))
    append(choices.isOdd(16) ? choices.field() : 4 << 16 | 2)
    append(0)
    append(0)
    append(choices.field())
    append(choices.isOdd(16) ? choices.field() : 1)
    var frames = 0
    while !choices.isAtEnd {
      frames += 1
      let size = choices.below(200)
      append(choices.field())
      append(choices.field())
      append(choices.isOdd(16) ? choices.field() : UInt64(size))
      append(choices.isOdd(32) ? choices.field() : UInt64(size))
      bytes += [UInt8](repeating: choices.byte(), count: size)
    }
    readFile(bytes, choices)
    return frames + 1
  }

  /// A file of blocks, each of which may be wrong in any of its fields.
  static func pcapng(_ choices: Choices) throws -> Int {
    var file = BlockWriter(isSwapped: choices.isOdd(128))
    file.section(choices)
    file.interface(choices)
    var blocks = 2
    while !choices.isAtEnd {
      blocks += 1
      switch choices.byte() {
      case 0..<120: file.enhancedPacket(choices)
      case 120..<160: file.simplePacket(choices)
      case 160..<210: file.interface(choices)
      case 210..<230:
        if choices.isOdd(128) { file.isSwapped.toggle() }
        file.section(choices)
      default: file.block(UInt64(choices.byte()), file.words([choices.field()]), choices)
      }
    }
    readFile(file.bytes, choices)
    return blocks
  }

  /// Reads a file with these bytes, or without some of the last.
  private static func readFile(_ whole: [UInt8], _ choices: Choices) {
    var bytes = whole
    if choices.isOdd(1) { bytes.removeLast(choices.below(bytes.count)) }
    let file = FileDescriptor(owning: ixy_memfd("fuzz", IXY_MEMFD_CLOEXEC))
    let written = bytes.withUnsafeBytes { write(file.number, $0.baseAddress, $0.count) }
    precondition(written == bytes.count, "the machine has no memory")
    read("/proc/self/fd/\(file.number)", limit: bytes.count)
  }

  private static func read(_ path: String, limit: Int) {
    guard let reader = try? PcapReader(path: path) else { return }
    var lengths: [[Int]] = []
    for _ in 0..<2 {
      var found: [Int] = []
      while let record = try? reader.next() {
        precondition(record.bytes.count <= limit, "a frame longer than its file")
        if let last = record.bytes.last { found.append(Int(last)) }
        found.append(record.bytes.count)
      }
      lengths.append(found)
      if (try? reader.rewind()) == nil { break }
    }
    if lengths.count == 2 { precondition(lengths[0] == lengths[1], "not the same when read twice") }
    if let wire = try? PcapWire(input: path, output: nil) {
      wire.receiverChanged(isOn: true)
      while let frame = wire.nextFrame() {
        precondition(frame.count >= FrameSize.minimum, "a frame shorter than a wire carries")
        wire.takeFrame()
      }
      try? wire.close()
    }
  }
}

/// Writes the blocks of a pcapng file; what is random in them comes from the choices.
private struct BlockWriter {
  private(set) var bytes: [UInt8] = []
  var isSwapped: Bool

  init(isSwapped: Bool) { self.isSwapped = isSwapped }

  /// Numbers of 32 bits in the file's byte order.
  func words(_ values: [UInt64]) -> [UInt8] {
    var bytes: [UInt8] = []
    for value in values {
      let word = UInt32(truncatingIfNeeded: value)
      bytes.append(field: isSwapped ? word.byteSwapped : word)
    }
    return bytes
  }

  /// Two numbers of 16 bits, as they lie in the file, one after the other.
  private func halves(_ first: UInt64, _ second: UInt64) -> [UInt8] {
    let (first, second) = (first & 0xFFFF, second & 0xFFFF)
    return words([isSwapped ? first << 16 | second : second << 16 | first])
  }

  mutating func block(_ type: UInt64, _ body: [UInt8], _ choices: Choices) {
    let padded = body + [UInt8](repeating: 0, count: -body.count & 3)
    let length = UInt64(padded.count + 12)
    func odd(_ value: UInt64) -> UInt64 { choices.isOdd(4) ? choices.field() : value }
    bytes += words([odd(type), odd(length)]) + padded + words([odd(length)])
  }

  mutating func section(_ choices: Choices) {
    let order: UInt64 = choices.isOdd(4) ? choices.field() : 0x1A2B_3C4D
    block(0x0A0D_0D0A, words([order, 1, .max, .max]), choices)
  }

  mutating func interface(_ choices: Choices) {
    var body = halves(choices.isOdd(8) ? choices.field() : 1, 0)
    body += words([choices.pick([0, 0, 64, 1514, choices.field()])])
    for _ in 0..<choices.below(4) {
      // The clock's resolution, the start of its times, or any other option.
      let (code, size) = choices.pick([(9, 1), (14, 8), (9, 8), (14, 1), (2, 3)])
      body += halves(
        choices.isOdd(16) ? choices.field() : UInt64(code),
        choices.isOdd(16) ? choices.field() : UInt64(size))
      body += (0..<(size + 3) & ~3).map { _ in choices.byte() }
    }
    block(1, body, choices)
  }

  mutating func enhancedPacket(_ choices: Choices) {
    let size = choices.below(200)
    let head = [
      choices.isOdd(16) ? choices.field() : UInt64(choices.below(2)), choices.field(),
      choices.field(), choices.isOdd(16) ? choices.field() : UInt64(size),
      choices.isOdd(32) ? choices.field() : UInt64(size),
    ]
    block(6, words(head) + [UInt8](repeating: choices.byte(), count: size), choices)
  }

  mutating func simplePacket(_ choices: Choices) {
    let size = choices.below(200)
    let original = choices.isOdd(32) ? choices.field() : UInt64(size)
    block(3, words([original]) + [UInt8](repeating: choices.byte(), count: size), choices)
  }
}
