import Glibc
import Ixy

/// A cable with a capture file at the other end: one is played, what comes out is written to another.
@safe public final class PcapWire: Wire {
  // SAFETY: `padded` has the size of the shortest frame; only shorter ones are copied there. A
  // record is valid until the next is read.
  private let input: PcapReader?
  private let output: PcapWriter?
  private var current: PcapReader.Record?
  /// A short frame, padded.
  private let padded = UnsafeMutableRawBufferPointer.allocate(
    byteCount: FrameSize.minimum, alignment: 16)
  private var isOn = false
  private var failure: DeviceError?
  /// What went over it.
  public var counts: WireCounts {
    var counts = ownCounts
    counts.dropped += output?.lost ?? 0
    return counts
  }
  private var ownCounts = WireCounts()

  /// Opens both files, and looks through all of the one that shall be played.
  ///
  /// - Parameters:
  ///   - inputPath: The file to play; nil plays nothing.
  ///   - outputPath: The file to write, begun when the first frame or the end comes; nil drops what comes.
  /// - Throws: `DeviceError` when a file cannot be used; nothing has been changed then.
  public init(input inputPath: String?, output outputPath: String?) throws(DeviceError) {
    input = try inputPath.map { path throws(DeviceError) in
      // Opening a pipe would wait for its other end.
      var status = stat()
      if unsafe stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
        throw .refused(
          "Play \(path)", found: "it is no file that can be read twice", advice: "Give a file.")
      }
      return try PcapReader(path: path)
    }
    if let input { try Self.check(input) }
    output = try outputPath.map { path throws(DeviceError) in try PcapWriter(path: path) }
  }

  deinit { unsafe padded.deallocate() }

  /// Finds frames that were not captured whole, and damage, before anything starts.
  private static func check(_ input: PcapReader) throws(DeviceError) {
    while let record = try input.next() {
      guard unsafe record.bytes.count < record.originalLength else { continue }
      throw .refused(
        "Play \(input.path)",
        found: unsafe "of frame \(input.count) it has \(record.bytes.count) of "
          + "\(record.originalLength) bytes",
        advice: "Capture whole frames (tcpdump -s 0).")
    }
    try input.rewind()
  }

  /// "pcap".
  public var kind: String { "pcap" }
  /// The file waits, and loses nothing.
  public var waitsForDescriptors: Bool { true }
  /// Always.
  public var isConnected: Bool { true }
  /// None: look often.
  public var readiness: Int32? { nil }
  /// Always.
  public var canSend: Bool { true }

  /// Writes a frame to the output, padded.
  public func send(_ frame: UnsafeRawBufferPointer) {
    ownCounts.received += 1
    guard let output else { return }
    let frame = unsafe frame.count < FrameSize.minimum ? pad(frame) : frame
    unsafe output.append(frame, at: nanosecondsSince1970())
  }

  /// The next frame of the input, padded.
  public func nextFrame() -> UnsafeRawBufferPointer? {
    if current == nil, isOn { read() }
    guard let frame = unsafe current?.bytes else { return nil }
    return unsafe frame.count < FrameSize.minimum ? pad(frame) : frame
  }

  /// Goes on to the next frame.
  public func takeFrame() {
    precondition(current != nil, "no frame was given")
    current = nil
    ownCounts.sent += 1
  }

  /// Starts to play, or pauses.
  public func receiverChanged(isOn: Bool) { self.isOn = isOn }

  /// Completes the output file.
  ///
  /// - Throws: What went wrong with either file since it was opened.
  public func close() throws(DeviceError) {
    try output?.close()
    if let failure { throw failure }
  }

  private func read() {
    guard let input, failure == nil else { return }
    do throws(DeviceError) {
      repeat {
        current = try input.next()
        guard let current, unsafe current.bytes.count < FrameSize.header else { return }
        ownCounts.dropped += 1
      } while true
    } catch {
      failure = error
    }
  }

  private func pad(_ frame: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    unsafe padded.copyMemory(from: frame)
    for i in frame.count..<FrameSize.minimum { unsafe padded[i] = 0 }
    return unsafe UnsafeRawBufferPointer(padded)
  }

  /// The time of day.
  private func nanosecondsSince1970() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }
}
