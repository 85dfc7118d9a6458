import ArgumentParser
import CIxy
import Foundation
import Ixy
import Synchronization

/// A small process that cuts a capture to what is in it when this one is killed.
///
/// A file that grows ahead of its content would otherwise end in zeros, which are no frames. Without it (no
/// process can be had) a capture is still whole on every other way out.
@safe final class CaptureRescue {
  private let other: FileDescriptor
  private let shared: UnsafeMutableRawPointer
  private var process: pid_t = 0
  private static let page = 4096

  /// How long the capture is: eight bytes that both processes see.
  var length: Int = 0 {
    didSet { unsafe ixy_store64(shared, UInt64(length)) }
  }

  /// Starts the process for a file; nil when there is none to be had.
  init?(file: Int32) {
    let memory = FileDescriptor(owning: unsafe ixy_memfd("capture", IXY_MEMFD_CLOEXEC))
    guard memory.number >= 0, ftruncate(memory.number, Self.page) == 0,
      let shared = unsafe mmap(
        nil, Self.page, PROT_READ | PROT_WRITE, MAP_SHARED, memory.number, 0),
      unsafe shared != MAP_FAILED
    else { return nil }
    var ends: [Int32] = [0, 0]
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    guard unsafe socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
      unsafe munmap(shared, Self.page)
      return nil
    }
    let readEnd = FileDescriptor(owning: ends[0])
    unsafe self.shared = unsafe shared
    other = FileDescriptor(owning: ends[1])
    guard start(standardInput: readEnd.number, file, memory.number) else { return nil }
  }

  deinit { unsafe munmap(shared, Self.page) }

  /// The capture was ended properly.
  func end() {
    guard process != 0 else { return }
    var byte: UInt8 = 1
    _ = unsafe write(other.number, &byte, 1)
    waitpid(process, nil, 0)
    process = 0
  }

  private func start(standardInput: Int32, _ file: Int32, _ memory: Int32) -> Bool {
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    // Copied above 9 first, so that no copy falls on a number that is still to be copied.
    let sources = [standardInput, file, memory]
    for (i, source) in sources.enumerated() {
      unsafe posix_spawn_file_actions_adddup2(&actions, source, Int32(100 + i))
    }
    for (i, target) in FinishCapture.files.enumerated() {
      unsafe posix_spawn_file_actions_adddup2(&actions, Int32(100 + i), target)
      unsafe posix_spawn_file_actions_addclose(&actions, Int32(100 + i))
    }
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    // A session of its own: Ctrl-C is not for it.
    let newSession: Int16 = 0x80
    unsafe posix_spawnattr_setflags(&attributes, newSession)
    let words = ["ixy", FinishCapture.name]
    var arguments = unsafe words.map { unsafe strdup($0) } + [nil]
    defer { unsafe arguments.forEach { unsafe free($0) } }
    return unsafe posix_spawn(
      &process, "/proc/self/exe", &actions, &attributes, &arguments, environ) == 0
  }
}

/// The other process of `CaptureRescue`: the hidden command `ixy finish-capture`.
struct FinishCapture: ParsableCommand {
  static let name = "finish-capture"
  static let configuration = CommandConfiguration(commandName: name, shouldDisplay: false)
  /// The socket that closes with the capture, the file, and the page with its length.
  static let files: [Int32] = [0, 3, 4]

  func run() throws {
    var byte: UInt8 = 0
    while true {
      let count = unsafe read(Self.files[0], &byte, 1)
      if count > 0 { return }
      if count == 0 || errno != EINTR { break }
    }
    var length: UInt64 = 0
    guard unsafe pread(Self.files[2], &length, 8, 0) == 8 else { throw ExitCode.failure }
    if ftruncate(Self.files[1], Int(length)) != 0 { throw ExitCode.failure }
  }
}
