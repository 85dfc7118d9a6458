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
    // Each process that is started here leads a group: what it has started itself goes, too.
    if process.isRunning { kill(-process.processIdentifier, SIGKILL) }
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
  func wait(seconds: Double = 60, for event: String, _ condition: () throws -> Bool) throws {
    let deadline = Date.now + seconds
    while try !condition() {
      if Date.now > deadline {
        throw Timeout(
          event: event, words: process.arguments ?? [], output: output, errors: errors)
      }
      usleep(10_000)
    }
  }

  /// Waits until its statistics of each second (--json) add up to so many frames at its first card.
  ///
  /// The first second may pass before the first frame.
  func waitForFrames(_ count: Int = 1) throws {
    try wait(for: "\(count) frames") {
      // The last line may be there in part.
      let seconds = output.split(separator: "\n").compactMap {
        try? Event.all(in: String($0)).first
      }
      let frames = seconds.compactMap { $0.ports?.first?.rx_packets }.reduce(0, +)
      return frames >= count || !isRunning
    }
  }

  struct Timeout: Error {
    var event: String
    var words: [String]
    var output: String
    var errors: String
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
  var rest = try Data(contentsOf: URL(fileURLWithPath: path))
  func take(_ count: Int) throws -> Data {
    try #require(rest.count >= count, "\(path) ends within a frame, or before its first")
    defer { rest = rest.dropFirst(count) }
    return Data(rest.prefix(count))
  }
  func number(_ bytes: Data) -> Int {
    Int(bytes.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
  }
  try #require([0xA1B2_C3D4, 0xA1B2_3C4D].contains(number(take(24).prefix(4))))
  var frames: [Data] = []
  while !rest.isEmpty { frames.append(try take(number(take(16)[8..<12]))) }
  return frames
}

/// Writes a capture of 21 numbered frames over two seconds, and returns the frames.
func writeTenASecond(to path: String) throws -> [Data] {
  func words(_ values: [UInt32]) -> Data {
    values.map { value in withUnsafeBytes(of: value.littleEndian) { Data($0) } }.reduce(Data(), +)
  }
  let frames = (0..<21).map { Data(repeating: $0, count: 60) }
  var file = words([0xA1B2_3C4D, 4 << 16 | 2, 0, 0, 65535, 1])
  for (i, frame) in frames.enumerated() {
    file += words([UInt32(i / 10), UInt32(i % 10 * 100_000_000), 60, 60]) + frame
  }
  try file.write(to: URL(fileURLWithPath: path))
  return frames
}

/// Whether nobody holds a capture: neither who writes it nor the process that cuts it to its frames.
func isFree(_ path: String) -> Bool {
  let file = open(path, O_RDONLY | O_CLOEXEC)
  defer { close(file) }
  // Closing alone does not unlock while a child that is just being started has the file, too.
  defer { flock(file, LOCK_UN) }
  return flock(file, LOCK_EX | LOCK_NB) == 0
}

/// Runs a script to its end, five minutes at most, and returns what it prints.
@discardableResult
func shell(_ script: String, in scratch: Scratch) throws -> String {
  let result = try Command(
    ["-o", "pipefail", "-ec", script], prefix: ["-C", scratch.path(".")], path: "bash", in: scratch
  ).wait(seconds: 300)
  if result.status != 0 {
    throw ScriptError(script: script, output: result.output, errors: result.errors)
  }
  return result.output
}

struct ScriptError: Error {
  var script: String
  var output: String
  var errors: String
}

/// Whether networks and file systems of a test's own can be made: root may not in a usual container.
let canUnshare: Bool = {
  guard getuid() == 0, let scratch = try? Scratch() else { return false }
  return (try? shell("unshare -mn mount -t tmpfs none /tmp", in: scratch)) != nil
}()

/// The frames of a capture that cards take at the usual MTU, as `fwd --touch` sends them.
func touched(_ traffic: String) throws -> [Data] {
  try frames(of: traffic).filter { $0.count <= 1518 }.map { frame in
    var touched = padded(frame)
    touched[1] &+= 1
    return touched
  }
}

/// A frame as it looks after a wire: at least 60 bytes.
func padded(_ frame: Data) -> Data { frame + Data(count: max(0, 60 - frame.count)) }
