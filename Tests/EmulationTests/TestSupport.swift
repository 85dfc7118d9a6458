import CIxy
import Foundation
import Glibc
import Ixy
import Testing

@testable import Emulation

/// A directory that goes with everything in it.
final class TemporaryDirectory {
  let path: String

  init() throws {
    let name = "ixy-\(UUID().uuidString.prefix(8))"
    path = FileManager.default.temporaryDirectory.appendingPathComponent(name).path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { path + "/" + name }

  /// A file with these bytes.
  func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: file(name)))
    return file(name)
  }
}

func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }

func bytes(of path: String) throws -> [UInt8] {
  [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
}

/// Where a program is; nil when this machine does not have it.
func program(_ name: String) -> String? {
  ["/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"].map { $0 + name }.first(where: exists)
}

/// Starts a program whose output goes to `output`; Foundation's Process hangs in a thread with a network
/// namespace of its own.
func start(_ program: String, _ arguments: [String], output: Int32) throws -> pid_t {
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
  posix_spawn_file_actions_adddup2(&actions, output, 1)
  posix_spawn_file_actions_adddup2(&actions, output, 2)
  // A test's thread blocks signals, and a child that inherits that cannot be ended.
  var attributes = posix_spawnattr_t()
  posix_spawnattr_init(&attributes)
  defer { posix_spawnattr_destroy(&attributes) }
  var signals = sigset_t()
  sigemptyset(&signals)
  posix_spawnattr_setsigmask(&attributes, &signals)
  posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
  let words = ([program] + arguments).map { strdup($0) }
  defer { for word in words { free(word) } }
  var process = pid_t()
  let code = posix_spawn(&process, program, &actions, &attributes, words + [nil], environ)
  guard code == 0 else {
    throw ProgramFailed(output: "\(program): \(String(cString: strerror(code)))")
  }
  return process
}

/// Runs a program to its end and returns what it printed.
@discardableResult
func run(_ program: String, _ arguments: String...) throws -> String {
  // Not a pipe: another program that starts meanwhile would keep it open.
  let file = FileDescriptor(owning: ixy_memfd("output", IXY_MEMFD_CLOEXEC))
  let process = try start(program, arguments, output: file.number)
  var status: Int32 = -1
  guard waitUntil(seconds: 300, { waitpid(process, &status, WNOHANG) != 0 }) else {
    kill(process, SIGKILL)
    waitpid(process, nil, 0)
    throw ProgramFailed(output: "\(program) \(arguments) does not end")
  }
  var text = [UInt8](repeating: 0, count: Int(lseek(file.number, 0, SEEK_END)))
  let count = pread(file.number, &text, text.count, 0)
  try #require(count == text.count)
  let output = String(decoding: text, as: UTF8.self)
  guard status == 0 else { throw ProgramFailed(output: output) }
  return output
}

struct ProgramFailed: Error { let output: String }

extension Wire {
  /// Sends a frame from the card.
  func send(bytes: [UInt8]) { bytes.withUnsafeBytes { send($0) } }

  /// Takes the next frame for the card.
  func take() -> [UInt8]? {
    guard let frame = nextFrame() else { return nil }
    let bytes = Array(frame)
    takeFrame()
    return bytes
  }

  /// Takes every frame that is there.
  func takeAll() -> [[UInt8]] {
    var frames: [[UInt8]] = []
    while let frame = take() { frames.append(frame) }
    return frames
  }
}

/// A frame that no other number and no other size has.
func frame(_ number: Int, size: Int) -> [UInt8] {
  var bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: size)
  for i in 0..<min(8, size) { bytes[i] = UInt8(truncatingIfNeeded: number >> (8 * i)) }
  bytes[size - 1] = 0xAB
  return bytes
}

/// What a wire makes of a short frame.
func padded(_ frame: [UInt8]) -> [UInt8] {
  frame + [UInt8](repeating: 0, count: max(0, 60 - frame.count))
}

/// The message of the error that `body` must throw.
func message(_ body: () throws -> Void) -> String {
  do {
    try body()
    return "no error"
  } catch {
    return "\(error)"
  }
}

/// Looks again and again whether something is so.
func waitUntil(seconds: Double = 60, _ condition: () throws -> Bool) rethrows -> Bool {
  let deadline = ContinuousClock.now + .seconds(seconds)
  while ContinuousClock.now < deadline {
    if try condition() { return true }
    usleep(1000)
  }
  return try condition()
}
