import ArgumentParser
import Emulation
import Ixy

/// The command `ixy fwd A B`.
struct ForwardCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fwd", abstract: "Forwards all frames between two cards, both ways.",
    discussion: """
      Where an emulated card has wire=sink, it is told at the end what arrived there of a generator's or of ixy \
      pktgen's frames: loss, reordering and latency.
      """)

  @Argument(help: "A card; ixy --help has the forms.") var first: CardName
  @Argument(help: "Another card.") var second: CardName
  @Option(in: 1...512, help: "The most packets that are received and sent at a time (1 to 512).")
  var batch = 32
  @Option(in: 68...9582, help: "The longest payload of a frame in bytes (68 to 9582).")
  var mtu = 1500
  @Option(help: "Ends after this time, as in 5s.") var duration: Duration?
  @Option(help: "Ends when no frame came for this time, counted from link up.")
  var exitWhenIdle: Duration?
  @Option(in: 1...Int.max, help: "Ends after so many frames.") var count: Int?
  @Flag(help: "Adds 1 to the second byte of each frame, the classic benchmark load.")
  var touch = false
  @Flag(
    help: """
      Frames stay in their descriptors, from the receive ring of a card to the transmit ring of the other: half the \
      work of a mempool. Both cards must be ixgbe.
      """)
  var inPlace = false
  @Option(in: 1...64, help: "Queue pairs of each card, each with a thread of its own (1 to 64).")
  var queues: Int?
  @Option(
    help: """
      The processors of the threads, as in 2,3 or 4-7: one for each queue pair, or three for the stages. \
      If not given, those of the cards' NUMA node.
      """)
  var cores: Cores?
  @Flag(help: "Receives, works and sends in three stages, each with a thread of its own.")
  var pipeline = false
  @OptionGroup var memoryOptions: MemoryOptions
  @OptionGroup var interruptOptions: InterruptOptions
  @OptionGroup var metricsOptions: MetricsOptions
  @OptionGroup var cardOptions: CardOptions

  func validate() throws {
    if let cores, cores.numbers.count > 64 {
      throw ValidationError("--cores: \(cores.numbers.count) are too many; name at most 64.")
    }
    if inPlace, pipeline || cores != nil || queues ?? 1 > 1 {
      throw ValidationError(
        "--in-place takes one queue of each card, on one thread: leave out --queues, --cores and --pipeline."
      )
    }
    if pipeline {
      if queues ?? 1 != 1 {
        throw ValidationError("--pipeline takes one queue of each card: leave out --queues.")
      }
      if let cores, cores.numbers.count != 3 {
        throw ValidationError("--pipeline takes three --cores: for receiving, work and sending.")
      }
    } else if let queues, let cores, queues != cores.numbers.count {
      throw ValidationError(
        "--queues \(queues) with \(cores.numbers.count) --cores: name one core for each queue.")
    }
  }

  /// Threads for queue pairs; nil is one loop on the command's own thread.
  private var threads: Int? {
    if pipeline { return nil }
    let count = queues ?? cores?.numbers.count ?? 1
    return count > 1 || cores != nil ? count : nil
  }

  func run() throws {
    StopSignal.install()
    var configuration = DeviceConfiguration()
    configuration.mtu = mtu
    configuration.receiveQueues = threads ?? 1
    configuration.transmitQueues = threads ?? 1
    let bench = CardBench(cardOptions, numa: memoryOptions.numa ?? .auto)
    let devices = try bench.open([first, second], configuration)
    for device in devices { try device.setPromiscuous(true) }
    let ports = bench.ports
    let sinks = bench.wires.compactMap { $0 as? SinkWire }
    bench.emulation.exclusively { for sink in sinks { sink.measureLatency() } }
    try bench.waitForLinks()
    var limits = Limits(
      duration: duration, idle: exitWhenIdle, count: count)
    let reporter = Reporter(ports, json: cardOptions.json)
    try reporter.serveMetrics(at: metricsOptions.metrics)
    do {
      try forward(ports, bench, configuration, &limits, reporter)
    } catch {
      reporter.finish()
      throw error
    }
    // The transmit rings are empty: what was sent has arrived.
    for sink in sinks where sink.counts.received > 0 {
      let report = bench.emulation.exclusively { SinkReport(sink) }
      output(cardOptions.json ? jsonLine(report) : "sink: " + report.text)
    }
    reporter.finish()
    try bench.close()
  }

  /// On as many threads as the user wants.
  private func forward(
    _ ports: [Port], _ bench: CardBench, _ configuration: DeviceConfiguration,
    _ limits: inout Limits, _ reporter: Reporter
  ) throws {
    let load = Load(batch: batch, touch: touch)
    let mode = interruptOptions.interrupts
    if pipeline {
      let plan = ThreadPlan(threads: 3, named: cores, available: bench.cores)
      return try forwardInStages(
        ports, bench, configuration, load, mode, plan, &limits, reporter)
    }
    if let threads {
      let plan = ThreadPlan(threads: threads, named: cores, available: bench.cores)
      return try forwardOnThreads(
        ports, bench, configuration, load, mode, plan, &limits, reporter)
    }
    if bench.node != nil { try bench.cores.pinThread() }
    var watch = try CardWatch(mode, bench)
    if inPlace { return try forwardInPlace(ports, load, &watch, &limits, reporter) }
    let pool = try Mempool(
      domain: bench.domain, buffers: 4096, bufferSize: configuration.bufferSize)
    try forwardHere(ports, pool, load, &watch, &limits, reporter)
  }
}

/// When a command ends, besides on a signal.
struct Limits: Budget {
  let deadline: ContinuousClock.Instant?
  let idle: Duration?
  /// Packets still to go; nil is no limit.
  var left: Int?
  /// Nil until the first look: what is set up before takes its time, and no packets.
  private var lastPacket: ContinuousClock.Instant?

  init(duration: Duration?, idle: Duration? = nil, count: Int? = nil) {
    deadline = duration.map { ContinuousClock.now + $0 }
    self.idle = idle
    left = count
  }

  /// The most packets to take next.
  func next(_ batch: Int) -> Int { min(batch, left ?? batch) }

  /// Notes packets that were taken.
  mutating func took(_ count: Int) {
    if let left { self.left = left - count }
  }

  /// Called when the time is up; from then on it ends as soon as nothing comes.
  var isEnding: (() -> Void)?
  private var hasEnded = false

  /// Whether it is time to end; looks at the clock.
  mutating func isOver(wasBusy: Bool, at now: ContinuousClock.Instant = .now) -> Bool {
    let lastPacket = wasBusy ? now : lastPacket ?? now
    self.lastPacket = lastPacket
    if hasEnded { return now - lastPacket >= .milliseconds(100) }
    if StopSignal.isRaised || left == 0 || deadline.map({ now >= $0 }) ?? false {
      guard let isEnding else { return true }
      isEnding()
      hasEnded = true
      return false
    }
    if let idle, now - lastPacket >= idle { return true }
    return false
  }
}
