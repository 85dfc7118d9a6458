import Foundation
import Testing

/// The command `ixy`, run as its users run it.
///
/// `IXY` names the binary to test; otherwise it is the one beside the tests.
final class Command {
  static let path = ProcessInfo.processInfo.environment["IXY"] ?? dynamicPath
  /// The one that `swift test` builds, which can load libraries.
  static let dynamicPath =
    Bundle.main.executableURL?.deletingLastPathComponent().appending(path: "ixy").path ?? "ixy"

  private let process = Process()
  private let outputFile: URL
  private let errorFile: URL

  /// Starts the command; `prefix` is what runs it, such as `ip netns exec NAME`.
  init(
    _ arguments: [String], prefix: [String] = [], path: String = Command.path, in folder: Scratch
  ) throws {
    let name = UUID().uuidString
    outputFile = folder.url(name + ".out")
    errorFile = folder.url(name + ".err")
    let words = prefix + [path] + arguments
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = words
    process.standardInput = FileHandle.nullDevice
    for (file, isError) in [(outputFile, false), (errorFile, true)] {
      _ = FileManager.default.createFile(atPath: file.path, contents: nil)
      let handle = try FileHandle(forWritingTo: file)
      if isError { process.standardError = handle } else { process.standardOutput = handle }
    }
    try process.run()
  }

  deinit {
    if process.isRunning { kill(process.processIdentifier, SIGKILL) }
  }

  /// What it has printed so far.
  var output: String { (try? String(contentsOf: outputFile, encoding: .utf8)) ?? "" }
  /// What it has said beside that so far.
  var errors: String { (try? String(contentsOf: errorFile, encoding: .utf8)) ?? "" }
  var isRunning: Bool { process.isRunning }
  var identifier: Int32 { process.processIdentifier }

  func interrupt(_ signal: Int32 = SIGINT) { kill(process.processIdentifier, signal) }

  /// Waits for its end.
  func wait(seconds: Double = 60) throws -> (status: Int32, output: String, errors: String) {
    try wait(seconds: seconds, for: "the end of the command") { !self.process.isRunning }
    return (process.terminationStatus, output, errors)
  }

  /// Waits until `condition` holds.
  func wait(seconds: Double = 60, for event: String, _ condition: () -> Bool) throws {
    let deadline = Date.now + seconds
    while !condition() {
      if Date.now > deadline { throw Timeout(event: event, output: output + errors) }
      usleep(10_000)
    }
  }

  struct Timeout: Error {
    var event: String
    var output: String
  }

  /// Runs the command to its end.
  static func run(_ arguments: String..., in folder: Scratch) throws -> (
    status: Int32, output: String, errors: String
  ) { try Command(arguments, in: folder).wait() }
}

/// A folder that goes with its test.
final class Scratch {
  private let folder: URL

  init() throws {
    // Short: socket addresses have room for 107 bytes.
    folder = FileManager.default.temporaryDirectory.appending(
      path: "ixy-\(UUID().uuidString.prefix(8))")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func url(_ name: String) -> URL { folder.appending(path: name) }
  func path(_ name: String) -> String { url(name).path }
}

/// One line of JSON that the command printed.
struct Event: Decodable {
  struct Port: Decodable {
    var name: String
    var rx_packets: Int
    var rx_bytes: Int
    var tx_packets: Int
    var tx_bytes: Int
    var rx_dropped: Int
    var tx_dropped: Int
    var rx_errors: Int
    var queues: [Queue]?
  }
  struct Queue: Decodable {
    var rx_packets: Int
    var tx_packets: Int
  }
  struct Wire: Decodable {
    var sent: Int
    var received: Int
    var lost: Int
    var reordered: Int
  }
  var event: String
  var duration_s: Double?
  var ports: [Port]?
  var wire: Wire?

  /// Every line must be one object.
  static func all(in output: String) throws -> [Event] {
    try output.split(separator: "\n").map {
      try JSONDecoder().decode(Event.self, from: Data($0.utf8))
    }
  }
}

/// The frames of a capture file of the classic format.
func frames(of path: String) throws -> [Data] {
  let data = try Data(contentsOf: URL(fileURLWithPath: path))
  func number(_ offset: Int) -> Int {
    Int(data[offset..<offset + 4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
  }
  try #require([0xA1B2_C3D4, 0xA1B2_3C4D].contains(number(0)))
  var frames: [Data] = []
  var offset = 24
  while offset < data.count {
    let length = number(offset + 8)
    frames.append(Data(data[offset + 16..<offset + 16 + length]))
    offset += 16 + length
  }
  return frames
}

/// Runs a script to its end; its output is in the error when it fails.
@discardableResult
func shell(_ script: String, in scratch: Scratch) throws -> String {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/bin/bash")
  process.arguments = ["-o", "pipefail", "-ec", script]
  let log = scratch.url(UUID().uuidString)
  _ = FileManager.default.createFile(atPath: log.path, contents: nil)
  let handle = try FileHandle(forWritingTo: log)
  process.standardOutput = handle
  process.standardError = handle
  process.currentDirectoryURL = scratch.url(".")
  try process.run()
  process.waitUntilExit()
  let text = try String(contentsOf: log, encoding: .utf8)
  if process.terminationStatus != 0 { throw ScriptError(script: script, output: text) }
  return text
}

struct ScriptError: Error {
  var script: String
  var output: String
}

/// A frame as it looks after a wire: at least 60 bytes.
func padded(_ frame: Data) -> Data { frame + Data(count: max(0, 60 - frame.count)) }
