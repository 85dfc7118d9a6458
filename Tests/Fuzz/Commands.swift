import ArgumentParser
import Emulation
import Ixy

@testable import IxyCommand

/// What a user types at `ixy`, and the frames that it prints and filters.
enum CommandTargets {
  private static let commands: [any ParsableCommand.Type] = [
    DemoCommand.self, ForwardCommand.self, PktgenCommand.self, SinkCommand.self, DumpCommand.self,
    ReplayCommand.self, EchoCommand.self, InfoCommand.self, TraceCommand.self, DoctorCommand.self,
    EmulateCommand.self, BenchCommand.self, ListCommand.self, BindCommand.self,
  ]

  private static let options = [
    "--batch", "--mtu", "--duration", "--exit-when-idle", "--count", "--touch", "--in-place",
    "--queues", "--cores", "--pipeline", "--numa", "--interrupts", "--force", "--without-iommu",
    "--json", "--metrics", "--size", "--flows", "--ipv6", "--vlan", "--destination", "--template",
    "--rate", "--ip", "--socket", "--wire", "--no-shared-tails", "--once", "--format", "--frames",
    "--restore", "--release", "--user", "--registers", "--seconds", "--loop", "--fast", "-w", "-r",
    "-c", "-C", "-G", "-W", "-s", "-p", "-e", "-t", "-x", "--print", "--", "-", "--help",
  ]

  /// Pieces of values.
  private static let words = [
    "0", "1", "2", "3", "60", "64", "1500", "1514", "4095", "4096", "65535", "9223372036854775807",
    "9223372036854775808", "-1", "1e9", "1e-300", "nan", "inf", "0x10", "s", "ms", "us", "m", "h",
    "-", ",", ".", ":", "/", "=", "imix", "auto", "on", "off", "pcap", "pcapng", "text", "html",
    "Mpps", "kpps", "Mbit", "Gbit", "10.0.0.2", "224.0.0.1", "255", "256", "02:00:00:00:00:01",
    "ff", "0000:03:00.0", "03:00.0", "emu:82599", "wire=sink", "vfio-user:", "%H", "%", "", " ",
    "é", "²", "٣", "\u{0}",
  ]

  /// Random pieces of values in a row, with any bytes among them.
  private static func value(_ words: [String], _ choices: Choices, upTo limit: Int) -> String {
    var bytes: [UInt8] = []
    for _ in 0..<choices.below(limit) {
      if choices.isOdd(24) {
        bytes.append(choices.byte())
      } else {
        bytes += choices.pick(words).utf8
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Arguments of any command, and its own parsers with each of them.
  static func commandLine(_ choices: Choices) throws -> Int {
    let command = choices.pick(commands)
    var arguments: [String] = []
    while !choices.isAtEnd, arguments.count < 16 {
      arguments.append(
        choices.isOdd(110) ? choices.pick(options) : value(words, choices, upTo: 8))
    }
    arguments.forEach(check)
    do {
      _ = try command.parse(arguments)
    } catch {
      precondition(!command.fullMessage(for: error).isEmpty, "an error without a message")
    }
    return arguments.count
  }

  /// What a parser takes must be what the commands can use.
  private static func check(_ text: String) {
    if let duration = try? Duration(typed: text) {
      precondition(duration >= .zero, "\(text): \(duration)")
      _ = ContinuousClock.now + duration
    }
    if let sizes = try? SizePattern(typed: text) {
      let limits = sizes.limits
      precondition(60 <= limits.lowerBound && limits.upperBound <= 1514, "\(text): \(sizes)")
      precondition(sizes.limits.contains(Int(sizes.mean)), "\(text): \(sizes.mean)")
      for i in [0, 1, 11, 12, 1455, 1 << 40] {
        precondition(sizes.limits.contains(sizes.size(of: i)), "\(text): \(sizes.size(of: i))")
      }
    }
    if let rate = try? FrameRate(typed: text) {
      let perSecond = rate.framesPerSecond(size: 60)
      precondition(perSecond > 0 && perSecond.isFinite, "\(text): \(perSecond)")
    }
    if let address = try? IPv4Address(typed: text) {
      precondition(address.bytes.count == 4, "\(text): \(address)")
    }
    if let cores = try? Cores(typed: text) {
      precondition(!cores.numbers.isEmpty && Cores(cores.description) == cores, "\(cores)")
    }
    if case .node(let node) = try? NUMAChoice(typed: text) {
      precondition(0..<1024 ~= node, "\(text): node \(node)")
    }
    _ = try? PCIAddress(typed: text)
    _ = try? MACAddress(typed: text)
    _ = try? CardName(typed: text)
    _ = try? MetricsAddress(typed: text)
    _ = CaptureFormat(argument: text)
    let times = CaptureRotation(size: 1, seconds: 1, files: 1_000_000)
    precondition(!times.name(text + "%S", number: .max, time: 1).isEmpty, "a file without a name")
  }

  // MARK: - Frames

  private static let filterWords = [
    "tcp", "udp", "icmp", "arp", "ip", "ip6", "ether", "vlan", "host", "net", "port", "portrange",
    "src", "dst", "proto", "and", "or", "not", "(", ")", "[", "]", "=", "&", "|", "<", ">", "<<",
    "+", "-", "*", "/", "len", "less", "greater", "broadcast", "multicast", "0", "1", "9", "64",
    "80", "0xffffffff", "10.0.0.1", "10.0.0.0/8", "::1", "fe80::/10", "02:00:00:00:00:01", "1-9",
    "gateway", "mpls", "pppoes", "inbound", "tcp[tcpflags]", "tcp-syn", "\\", "\"", "",
  ]

  /// A filter's text, or a program that no compiler would write, over frames of any content.
  static func filter(_ choices: Choices) throws -> Int {
    let program: FilterProgram?
    if choices.isOdd(128) {
      let count = choices.below(12)
      let words = (0..<count).map { _ in
        choices.isOdd(16) ? value(filterWords, choices, upTo: 4) : choices.pick(filterWords)
      }
      program = try? FilterCompiler.compile(words.joined(separator: " "))
    } else {
      program = FilterProgram((0..<choices.below(40)).map { _ in instruction(choices) })
    }
    guard let program else { return 1 }
    var frames = 0
    repeat {
      frames += 1
      let bytes = bytesOfFrame(choices)
      let answer = bytes.withUnsafeBytes { program.accepts($0) }
      let again = bytes.withUnsafeBytes { program.accepts($0) }
      precondition(answer == again, "a filter with a memory")
    } while !choices.isAtEnd && frames < 20
    return frames
  }

  private static func instruction(_ choices: Choices) -> FilterProgram.Instruction {
    let codes: [UInt16] = [
      0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x06, 0x06, 0x07, 0x0C, 0x14, 0x15, 0x1C, 0x1D,
      0x20, 0x24, 0x25, 0x28, 0x30, 0x34, 0x35, 0x3C, 0x40, 0x44, 0x45, 0x48, 0x50, 0x54, 0x60,
      0x61, 0x64, 0x6C, 0x74, 0x7C, 0x80, 0x81, 0x84, 0x87, 0x94, 0x9C, 0xA4, 0xB1, 0x16,
    ]
    return FilterProgram.Instruction(
      code: choices.isOdd(8) ? UInt16(choices.number(bytes: 2)) : choices.pick(codes),
      ifTrue: choices.byte() % 8, ifFalse: choices.byte() % 8,
      value: UInt32(
        truncatingIfNeeded: choices.isOdd(128) ? choices.field() : UInt64(choices.byte())))
  }

  /// Mostly a frame of a known protocol, with anything behind.
  private static func bytesOfFrame(_ choices: Choices) -> [UInt8] {
    var bytes = (0..<12).map { _ in choices.byte() }
    let types: [[UInt8]] = [[8, 0], [0x86, 0xDD], [8, 6], [0x81, 0], [0x88, 0xA8], [0, 60]]
    bytes += choices.pick(types)
    while choices.isOdd(64), bytes.count < 40 { bytes += [0, 1] + choices.pick(types) }
    if choices.isOdd(200) { bytes.append(choices.pick([0x45, 0x46, 0x4F, 0x60, 0])) }
    let length = choices.below(160)
    for place in 0..<length {
      // Protocols and lengths that mean something come often.
      bytes.append(
        choices.isOdd(40) ? choices.pick([0, 1, 6, 17, 20, 43, 44, 58, 60]) : choices.byte())
      if place > 24, choices.isAtEnd { break }
    }
    return bytes
  }

  /// The line that is printed for a frame, whatever is in it.
  static func frame(_ choices: Choices) throws -> Int {
    var frames = 0
    repeat {
      frames += 1
      let bytes = bytesOfFrame(choices)
      for showsLink in [false, true] {
        let line = FrameDecoder(showsLink: showsLink).line(bytes)
        let isPrintable = line.utf8.allSatisfy { 0x20..<0x7F ~= $0 }
        precondition(isPrintable && !line.isEmpty, "a line that cannot be printed: \(line)")
      }
    } while !choices.isAtEnd && frames < 20
    return frames
  }
}
