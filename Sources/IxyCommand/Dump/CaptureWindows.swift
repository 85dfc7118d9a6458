import Foundation
import Ixy

/// Makes the windows of a capture file ahead of their use, on a thread of its own.
///
/// To grow a file and to make its pages takes a file system tens of milliseconds now and then, and at a million
/// frames a second a ring of 4,096 descriptors lasts four.
@safe final class CaptureWindows: @unchecked Sendable {
  /// A part of the file, mapped, with all of its pages made.
  @safe struct Window {
    let base: UnsafeMutableRawPointer
    let start: Int
    let length: Int
    var end: Int { start + length }
  }

  /// From the start of a window to that of the next; behind it every window has room for the longest record.
  private static let stride = 4 << 20
  private static let overlap = CaptureFormat.longestFrame + 4096
  /// So many windows wait: a fifth of a second at a million of the shortest frames.
  private static let ahead = 4
  /// The file grows by so much at a time, or by what is left on the disk.
  private static let growth = 64 << 20
  private static let page = 4096

  private let file: Int32
  private let path: String
  /// Guards all that follows, but for what only makes windows.
  private let condition = NSCondition()
  private var ready: [Window] = []
  private var used: [Window] = []
  private var failure: DeviceError?
  private var isRunning = false
  private var isEnding = false

  // Only for who makes windows: the caller until `start`, then the thread, and the caller again after `end`.
  private var made = 0
  private var allocated = 0

  /// Windows of a file, which stays open until `end`.
  init(file: Int32, path: String) {
    self.file = file
    self.path = path
  }

  /// From now on a thread makes them.
  func start() {
    isRunning = true
    Thread.detachNewThread { [self] in run() }
  }

  /// Gives a window back, and takes the next.
  func next(after window: Window?) throws(DeviceError) -> Window {
    if !isRunning {
      if let window { Self.unmap(window) }
      return try make()
    }
    condition.lock()
    defer { condition.unlock() }
    if let window { used.append(window) }
    condition.broadcast()
    while ready.isEmpty {
      if let failure { throw failure }
      condition.wait()
    }
    return ready.removeFirst()
  }

  /// Ends the thread, and unmaps what it has made, and `window`.
  func end(_ window: Window?) {
    condition.lock()
    isEnding = true
    condition.broadcast()
    while isRunning { condition.wait() }
    condition.unlock()
    for window in ready + used + (window.map { [$0] } ?? []) { Self.unmap(window) }
    (ready, used) = ([], [])
  }

  private func run() {
    Self.stepBack()
    condition.lock()
    while !isEnding {
      if let window = used.popLast() {
        condition.unlock()
        Self.unmap(window)
        condition.lock()
      } else if ready.count < Self.ahead, failure == nil {
        condition.unlock()
        let result = Result { () throws(DeviceError) in try make() }
        condition.lock()
        switch result {
        case .success(let window): ready.append(window)
        case .failure(let error): failure = error
        }
        condition.broadcast()
      } else {
        condition.wait()
      }
    }
    isRunning = false
    condition.broadcast()
    condition.unlock()
  }

  /// Where the process runs in real time, who receives goes first.
  private static func stepBack() {
    var (policy, parameters): (Int32, sched_param) = (0, sched_param())
    unsafe pthread_getschedparam(pthread_self(), &policy, &parameters)
    if parameters.sched_priority < 2 { return }
    parameters.sched_priority -= 1
    unsafe pthread_setschedparam(pthread_self(), policy, &parameters)
  }

  private func make() throws(DeviceError) -> Window {
    let start = made * Self.stride
    let wanted = Self.stride + Self.overlap
    // What a full disk has left makes a shorter window, and the next one fails.
    if start + wanted > allocated { try grow(from: start, to: start + wanted) }
    let length = min(allocated - start, wanted)
    let mapping = unsafe mmap(
      nil, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, start)
    guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
      throw .lastError("Map \(path)")
    }
    // All pages at once (MADV_POPULATE_WRITE); an older kernel makes each when it is written.
    let populateForWriting: Int32 = 23
    unsafe madvise(mapping, length, populateForWriting)
    made += 1
    return unsafe Window(base: mapping, start: start, length: length)
  }

  private func grow(from start: Int, to end: Int) throws(DeviceError) {
    var size = Self.growth
    while true {
      let code = posix_fallocate(file, allocated, size)
      if code == EINTR { continue }
      if code == 0 {
        allocated += size
        if allocated >= end { return }
        continue
      }
      // To the last page of the disk.
      size = size / 2 & ~(Self.page - 1)
      if size == 0 {
        if allocated > start { return }
        throw .system("Write to \(path)", errno: code, advice: "Is the disk full?")
      }
    }
  }

  private static func unmap(_ window: Window) { unsafe munmap(window.base, window.length) }
}
