import ArgumentParser
import Emulation
import Ixy

/// The command `ixy sink CARD`.
struct SinkCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sink",
    abstract: "Measures loss, order and latency of pktgen's frames.",
    discussion: """
      Start it before pktgen: frames are numbered from 0, and those that came before count as lost. Latency is \
      from pktgen's making a frame to its arrival here, and right only on the same machine.
      """)

  @Argument(help: "A card; ixy --help has the forms.") var card: CardName
  @Option(in: 1...Int.max, help: "Ends after so many frames.") var count: Int?
  @Option(help: "Ends after this time, as in 5s.") var duration: Duration?
  @Option(help: "Ends when no frame came for this time, counted from link up.")
  var exitWhenIdle: Duration?
  @OptionGroup var interruptOptions: InterruptOptions
  @OptionGroup var metricsOptions: MetricsOptions
  @OptionGroup var cardOptions: CardOptions

  func run() throws {
    StopSignal.install()
    let bench = CardBench(cardOptions)
    let device = try bench.open([card], DeviceConfiguration())[0]
    try device.setPromiscuous(true)
    let pool = try Mempool(domain: bench.domain, buffers: 4096)
    try bench.waitForLinks()
    var limits = Limits(duration: duration, idle: exitWhenIdle, count: count)
    let reporter = Reporter(bench.ports, json: cardOptions.json)
    try reporter.serveMetrics(at: metricsOptions.metrics)
    var watch = try CardWatch(interruptOptions.interrupts, bench)
    var measurement = Measurement()
    do {
      var queue = try device.receiveQueue(0, mempool: pool)
      var batch = PacketBatch(capacity: 64)
      try poll(&watch, &limits, reporter) { limits in
        let received = try queue.receive(into: &batch, max: limits.next(64))
        if received == 0 { return 0 }
        let now = monotonicTime()
        batch.forEach { packet in
          unsafe packet.contents.withUnsafeBytes { unsafe measurement.take($0, at: now) }
        }
        batch.removeAll()
        limits.took(received)
        return received
      }
    }
    reporter.finish()
    let report = measurement.report
    output(cardOptions.json ? jsonLine(report) : report.text)
    try bench.close()
  }
}

/// What numbered frames tell.
private struct Measurement {
  private let checker = SequenceChecker()
  private var latencies = Latencies()
  private var numbered: UInt64 = 0
  private var others: UInt64 = 0

  mutating func take(_ frame: UnsafeRawBufferPointer, at now: UInt64) {
    guard let header = unsafe TestFrame(frame) else {
      others += 1
      return
    }
    numbered += 1
    checker.check(header)
    latencies.add(header, at: now)
  }

  var report: SinkReport {
    SinkReport(
      received: numbered, others: others, lost: checker.lost, reordered: checker.reordered,
      latency_ns: SinkReport.Latency(latencies))
  }
}

/// The result of a sink; the names of the fields are part of the interface.
struct SinkReport: Encodable {
  struct Latency: Encodable {
    var p50: UInt64
    var p99: UInt64
    var p999: UInt64
    var max: UInt64

    /// Nil when nothing was measured.
    init?(_ latencies: Latencies) {
      guard let median = latencies.percentile(0.5) else { return nil }
      p50 = median
      p99 = latencies.percentile(0.99) ?? 0
      p999 = latencies.percentile(0.999) ?? 0
      max = latencies.max
    }

    /// In microseconds.
    var text: String {
      let times = [p50, p99, p999, max].map { fixed(Double($0) / 1000, 1) }
      return "latency in microseconds: p50 \(times[0]), p99 \(times[1]), p99.9 \(times[2]), "
        + "max \(times[3])"
    }
  }

  var event = "sink"
  /// Numbered frames.
  var received: UInt64
  /// Frames that are not numbered.
  var others: UInt64
  var lost: UInt64
  var reordered: UInt64
  var latency_ns: Latency?

  init(
    received: UInt64, others: UInt64, lost: UInt64, reordered: UInt64, latency_ns: Latency?
  ) {
    (self.received, self.others, self.latency_ns) = (received, others, latency_ns)
    (self.lost, self.reordered) = (lost, reordered)
  }

  /// What a wire has measured.
  init(_ wire: SinkWire) {
    let (counts, latencies) = (wire.counts, wire.latencies)
    self.init(
      received: latencies.count, others: counts.received - latencies.count, lost: counts.lost,
      reordered: counts.reordered, latency_ns: Latency(latencies))
  }

  var text: String {
    let all = received + lost
    let part = all == 0 ? 0 : 100 * Double(lost) / Double(all)
    return "\(received) numbered frames and \(others) others; \(lost) lost (\(fixed(part, 3)) %), "
      + "\(reordered) out of order" + (latency_ns.map { "\n\($0.text)" } ?? "")
  }
}
