import Foundation

/// Finds the lines of the driver that return addresses belong to, with addr2line of binutils.
struct DriverLines {
  /// For each address, "IxgbeDevice.swift:117"; nothing for those outside the drivers.
  private var lines: [UInt: String] = [:]

  /// Looks all addresses up at once; without addr2line or debug information there are no lines.
  init(of addresses: Set<UInt>) {
    guard !addresses.isEmpty, let base = Self.loadAddress() else { return }
    let sorted = addresses.sorted()
    // A return address is behind its call.
    let text =
      sorted.map { "0x" + String($0 &- base &- 1, radix: 16) }.joined(separator: "\n") + "\n"
    guard let output = Self.run(input: text) else { return }
    // Of each address: itself, then a file and line for every function that was inlined there.
    var next = -1
    for line in output.split(separator: "\n") {
      if line.hasPrefix("0x") {
        next += 1
      } else if next >= 0, next < sorted.count, lines[sorted[next]] == nil,
        line.contains("/Ixy/Drivers/"), let name = line.split(separator: "/").last,
        !name.hasSuffix(":?"), !name.hasSuffix(":0")
      {
        lines[sorted[next]] = String(name.prefix { $0 != " " })
      }
    }
  }

  /// The innermost line of the driver among the callers.
  func line(of callers: [UInt]) -> String? {
    callers.lazy.compactMap { lines[$0] }.first
  }

  /// What is added to the addresses of this program's file when it runs; nil when that cannot be read.
  private static func loadAddress() -> UInt? {
    let path = "/proc/self/exe"
    // To its end: a String takes only the first page of it, and a sanitizer maps more than that before the program.
    let maps = try? FileHandle(forReadingFrom: URL(fileURLWithPath: "/proc/self/maps")).readToEnd()
    guard let maps,
      let program = try? FileManager.default.destinationOfSymbolicLink(atPath: path),
      let file = try? FileHandle(forReadingFrom: URL(fileURLWithPath: path)),
      let header = try? file.read(upToCount: 18), header.count == 18,
      let line = String(decoding: maps, as: UTF8.self).split(separator: "\n").first(where: {
        $0.hasSuffix(program)
      }), let start = UInt(line.prefix { $0 != "-" }, radix: 16)
    else { return nil }
    // The type of an ELF file: 2 runs where its file says, 3 anywhere.
    return header[16] == 2 ? 0 : start
  }

  private static func run(input: String) -> String? {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["addr2line", "-a", "-i", "-e", "/proc/\(getpid())/exe"]
    let (question, answer) = (Pipe(), Pipe())
    process.standardInput = question
    process.standardOutput = answer
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return nil }
    // Beside the reading: it answers while it is asked, and pipes are short.
    DispatchQueue.global().async {
      try? question.fileHandleForWriting.write(contentsOf: Data(input.utf8))
      try? question.fileHandleForWriting.close()
    }
    let data = answer.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return process.terminationStatus == 0 ? String(decoding: data, as: UTF8.self) : nil
  }
}
