import Foundation
import Ixy

/// When a capture goes on in another file (-C, -G, -W), with the file names that tcpdump gives.
struct CaptureRotation {
  /// The most bytes of a file; one frame may go over it.
  var size: Int?
  /// The longest time of a file, in seconds.
  var seconds: Int?
  /// After so many files a capture with a size begins again, and one with times alone ends.
  var files: Int?

  /// The name of a file.
  ///
  /// - Parameters:
  ///   - path: What the user wrote; with a time, a pattern for strftime.
  ///   - number: The file among those of one time.
  ///   - time: When it begins.
  /// - Returns: `a.pcap`, `a.pcap1`, ...; `a.pcap00`, `a.pcap01`, ... when the number of files is known.
  func name(_ path: String, number: Int, time: time_t) -> String {
    let base = seconds == nil ? path : Self.format(path, time)
    guard size != nil else { return base }
    if let files {
      let digits = String(files - 1).count
      let text = String(number % files)
      return base + String(repeating: "0", count: digits - text.count) + text
    }
    return number == 0 ? base : "\(base)\(number)"
  }

  private static func format(_ pattern: String, _ time: time_t) -> String {
    var (time, parts) = unsafe (time, tm())
    unsafe localtime_r(&time, &parts)
    return unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4096) { text in
      guard let base = text.baseAddress, unsafe strftime(base, 4096, pattern, &parts) > 0 else {
        return pattern
      }
      return unsafe String(cString: base)
    }
  }
}

/// A capture: one file after the other, or standard output.
final class CaptureFiles {
  /// The frames that are in it.
  private(set) var count = 0
  /// The frames that could not be written.
  private(set) var lost = 0
  /// Whether the last file that was wanted is full.
  private(set) var isOver = false
  private(set) var failure: DeviceError?

  private let path: String
  private let format: CaptureFormat
  private let snapLength: Int
  private let rotation: CaptureRotation
  private var output: CaptureOutput?
  /// The file among those of one time, and the times that were begun.
  private var number = 0
  private var periods = 0
  private var began: UInt64 = 0

  /// Opens the first file.
  ///
  /// - Parameters:
  ///   - path: Where to write; "-" is standard output.
  ///   - format: How.
  ///   - snapLength: How much of a frame is kept, at most.
  ///   - rotation: When another file begins.
  /// - Throws: `DeviceError` when it cannot be written.
  init(path: String, format: CaptureFormat, snapLength: Int, rotation: CaptureRotation)
    throws(DeviceError)
  {
    self.path = path
    self.format = format
    self.snapLength = snapLength
    self.rotation = rotation
    try open(at: UInt64(Date.now.timeIntervalSince1970 * 1e9))
  }

  /// Begins the first file: what was in it before goes only now.
  func start() throws(DeviceError) { try writeHeader() }

  /// Adds a frame, at a time in nanoseconds since 1970.
  func append(_ frame: UnsafeRawBufferPointer, at time: UInt64) {
    if isOver { return }
    do throws(DeviceError) {
      if let failure { throw failure }
      try rotate(at: time)
      guard let output, !isOver else { return }
      let kept = min(frame.count, snapLength)
      let size = format.recordSize(kept)
      unsafe format.write(frame, kept: kept, time: time, to: try output.reserve(size))
      output.commit(size)
      count += 1
    } catch {
      failure = error
      lost += 1
    }
  }

  /// Lets whoever reads along see what is there.
  func flush() {
    do throws(DeviceError) { try output?.flush() } catch { failure = failure ?? error }
  }

  /// Ends the file.
  ///
  /// - Throws: What went wrong since the start.
  func close() throws(DeviceError) {
    do throws(DeviceError) { try output?.close() } catch { failure = failure ?? error }
    output = nil
    guard let failure else { return }
    throw .refused(
      "Write the capture", found: "\(failure) \(count) frames are in \(path), \(lost) are not",
      advice: "")
  }

  private func rotate(at time: UInt64) throws(DeviceError) {
    if let seconds = rotation.seconds, time >= began + UInt64(seconds) * 1_000_000_000 {
      periods += 1
      if rotation.size == nil, let files = rotation.files, periods >= files {
        isOver = true
        return
      }
      number = 0
      try open(at: time)
      try writeHeader()
    } else if let size = rotation.size, let output, output.length > size {
      number += 1
      try open(at: began)
      try writeHeader()
    }
  }

  private func open(at time: UInt64) throws(DeviceError) {
    began = time
    try output?.close()
    output = nil
    let name = rotation.name(path, number: number, time: time_t(time / 1_000_000_000))
    output =
      if path == "-" {
        StreamOutput(FileDescriptor(owning: dup(STDOUT_FILENO)), path: "standard output")
      } else if Self.isStream(name) {
        StreamOutput(try FileDescriptor(path: name, O_WRONLY), path: name)
      } else { try MappedFile(path: name) }
  }

  private func writeHeader() throws(DeviceError) {
    guard let output else { return }
    let header = format.header(snapLength: snapLength)
    let place = unsafe try output.reserve(header.count)
    unsafe place.copyMemory(from: header, byteCount: header.count)
    output.commit(header.count)
    try output.flush()
  }

  /// Whether a path is there and no file that can be mapped: a named pipe, a device.
  private static func isStream(_ path: String) -> Bool {
    var status = stat()
    return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFREG
  }
}
