import ArgumentParser
import Ixy

/// The command `ixy fwd A B`.
struct ForwardCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fwd", abstract: "Forwards every frame from one card to the other, both ways.")

  @Argument(help: "A card.") var first: String
  @Argument(help: "Another card.") var second: String
  @Option(help: "The most packets that are received and sent at a time (1 to 512).")
  var batch = 32
  @Option(help: "The longest payload of a frame in bytes (68 to 9582).") var mtu = 1500
  @Option(help: "Ends after this time, as in 5s.") var duration: DurationArgument?
  @Option(help: "Ends when no frame came for this time, counted from link up.")
  var exitWhenIdle: DurationArgument?
  @Option(help: "Ends after so many frames.") var count: Int?
  @Flag(help: "Adds 1 to the second byte of each frame, the classic benchmark load.")
  var touch = false
  @Flag(
    help: """
      Frames stay in their descriptors, from the receive ring of a card to the transmit ring of the other: half the \
      work of a mempool. Both cards must be ixgbe.
      """)
  var inPlace = false
  @OptionGroup var interruptOptions: InterruptOptions
  @OptionGroup var cardOptions: CardOptions

  func validate() throws {
    try require(batch, in: 1...512, "--batch")
    try require(mtu, in: 68...9582, "--mtu")
    if let count { try require(count, in: 1...Int.max, "--count") }
  }

  func run() throws {
    StopSignal.install()
    var configuration = DeviceConfiguration()
    configuration.mtu = mtu
    let bench = CardBench(cardOptions)
    let devices = try bench.open([first, second], configuration)
    for device in devices { try device.setPromiscuous(true) }
    let ports = bench.ports
    let pool = try Mempool(
      domain: bench.domain, buffers: 4096, bufferSize: configuration.bufferSize)
    try bench.waitForLinks()
    var limits = Limits(
      duration: duration?.duration, idle: exitWhenIdle?.duration, count: count)
    var watch = try CardWatch(interruptOptions.interrupts, bench)
    let reporter = Reporter(ports, json: cardOptions.json)
    try reporter.serveMetrics(at: cardOptions.metrics)
    do {
      if inPlace {
        try forwardInPlace(ports, batch: batch, touch: touch, &watch, &limits, reporter)
      } else {
        try forward(ports, pool, batch: batch, touch: touch, &watch, &limits, reporter)
      }
    } catch {
      reporter.finish()
      throw error
    }
    reporter.finish()
    try bench.close()
  }
}

/// When a command ends, besides on a signal.
struct Limits {
  let deadline: ContinuousClock.Instant?
  let idle: Duration?
  /// Packets still to go; nil is no limit.
  var left: Int?
  private var lastPacket = ContinuousClock.now

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
  mutating func isOver(wasBusy: Bool) -> Bool {
    let now = ContinuousClock.now
    if wasBusy { lastPacket = now }
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
