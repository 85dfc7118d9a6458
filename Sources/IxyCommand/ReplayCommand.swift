import ArgumentParser
import Emulation
import Foundation
import Ixy

/// The command `ixy replay CARD -r FILE`.
struct ReplayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replay", abstract: "Sends the frames of a capture file, at their times.")

  @Argument(help: "A card; ixy --help has the forms.") var card: CardName
  @Option(name: .short, help: .init("The capture, pcap or pcapng.", valueName: "file"))
  var readFile: String
  @Option(help: "How fast, as in 1Mpps or 500Mbit, whatever the file's times say.")
  var rate: FrameRate?
  @Flag(help: "As fast as the card takes them.") var fast = false
  @Option(in: 0...Int.max, help: "How often the file is sent; 0 is without end.")
  var loop = 1
  @Option(in: 1...Int.max, help: "Ends after so many frames.") var count: Int?
  @Option(help: "Ends after this time, as in 5s.") var duration: Duration?
  @Option(in: 68...9582, help: "The longest payload of a frame in bytes (68 to 9582).")
  var mtu = 1500
  @OptionGroup var metricsOptions: MetricsOptions
  @OptionGroup var cardOptions: CardOptions

  func validate() throws {
    if fast, rate != nil { throw ValidationError("Say --rate or --fast, not both.") }
  }

  func run() throws {
    StopSignal.install()
    let timing: ReplayTiming = fast ? .fast : rate.map { .rate($0) } ?? .recorded
    var source = ReplaySource(
      reader: try PcapReader(path: readFile), timing: timing, rounds: loop == 0 ? .max : loop)
    var configuration = DeviceConfiguration()
    configuration.mtu = mtu
    let bench = CardBench(cardOptions)
    let device = try bench.open([card], configuration)[0]
    let pool = try Mempool(
      domain: bench.domain, buffers: 2048, bufferSize: configuration.bufferSize)
    source.longest = configuration.maximumFrame
    let reporter = Reporter(bench.ports, json: cardOptions.json)
    try reporter.serveMetrics(at: metricsOptions.metrics)
    try bench.waitForLinks()
    var limits = Limits(duration: duration, count: count)
    var queue = try device.transmitQueue(0)
    var batch = PacketBatch(capacity: 32)
    var watch = try CardWatch(.off, bench)
    do {
      try poll(&watch, &limits, reporter) { limits in
        try source.fill(&batch, from: pool, upTo: limits.next(32))
        let sent = try queue.transmit(&batch)
        _ = try queue.reclaim()
        limits.took(sent)
        if source.isOver, batch.isEmpty { limits.left = 0 }
        return sent
      }
    } catch {
      reporter.finish()
      throw error
    }
    try drain { try queue.reclaim() }
    reporter.finish()
    if source.skipped > 0 {
      tell("\(source.skipped) frames of \(readFile) are too short or too long to be sent.")
    }
    try bench.close()
  }
}

/// When the frames of a capture are sent.
enum ReplayTiming {
  case recorded
  case rate(FrameRate)
  case fast
}

/// The frames of a capture, each when it is due.
struct ReplaySource {
  /// The longest frame that the card takes, in bytes.
  var longest = 1518
  /// Frames that no card takes.
  private(set) var skipped = 0
  private(set) var isOver = false
  private let reader: PcapReader
  private let timing: ReplayTiming
  private var rounds: Int
  /// The frame that is next, and when, in nanoseconds of the monotonic clock.
  private var next: (record: PcapReader.Record, due: UInt64)?
  /// Where the file's times are on the monotonic clock.
  private var origin: (file: UInt64, clock: UInt64)?
  /// With a rate: when the next frame is due, in nanoseconds after the first.
  private var planned = 0.0

  init(reader: PcapReader, timing: ReplayTiming, rounds: Int) {
    self.reader = reader
    self.timing = timing
    self.rounds = rounds
  }

  /// Adds the frames that are due to a batch, until it has `count`.
  ///
  /// - Throws: When the file cannot be read on, or has only the start of a frame.
  mutating func fill(
    _ batch: inout PacketBatch, from pool: Mempool, upTo count: Int,
    at now: UInt64 = monotonicTime()
  ) throws {
    while batch.count < count, !isOver {
      if next == nil, try !read(now) { return }
      guard let (record, due) = next, due <= now else { return }
      let length = unsafe record.bytes.count
      guard var packet = pool.packet(length: length) else { return }
      var bytes = packet.bytes
      unsafe bytes.withUnsafeMutableBytes { unsafe $0.copyMemory(from: record.bytes) }
      batch.append(packet)
      next = nil
    }
  }

  /// Finds the next frame; false at the end.
  private mutating func read(_ now: UInt64) throws -> Bool {
    while true {
      guard let record = try reader.next() else {
        rounds -= 1
        // A file without frames would be read for ever.
        if rounds == 0 || reader.count == UInt64(skipped) || StopSignal.isRaised {
          isOver = true
          return false
        }
        try reader.rewind()
        if case .recorded = timing { origin = nil }
        continue
      }
      let length = unsafe record.bytes.count
      guard length == record.originalLength else {
        throw DeviceError.refused(
          "Send \(reader.path)",
          found: "of frame \(reader.count) it has \(length) of \(record.originalLength) bytes",
          advice: "Capture whole frames (-s 0 of tcpdump, no -s here).")
      }
      guard (14...longest).contains(length) else {
        skipped += 1
        continue
      }
      next = (record, due(record.time, length, now))
      return true
    }
  }

  private mutating func due(_ time: UInt64, _ size: Int, _ now: UInt64) -> UInt64 {
    switch timing {
    case .fast: return 0
    case .recorded:
      let start = origin ?? (time, now)
      origin = start
      // A frame that was recorded out of order is due at once.
      return time <= start.file ? start.clock : start.clock &+ (time &- start.file)
    case .rate(let rate):
      let start = origin ?? (0, now &- UInt64(planned))
      origin = start
      defer { planned += 1e9 / rate.framesPerSecond(size: max(60, size)) }
      return start.clock &+ UInt64(planned)
    }
  }
}
