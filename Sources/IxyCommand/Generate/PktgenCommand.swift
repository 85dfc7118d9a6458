import ArgumentParser
import Emulation
import Ixy

/// The command `ixy pktgen CARD`.
struct PktgenCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pktgen",
    abstract: "Sends numbered frames for ixy sink, or a given one.")

  @Argument(help: "A card; ixy --help has the forms.") var card: CardName
  @Option(
    help: """
      The size of frames in bytes, without FCS: 60, 60-1514 or imix; if not given, the least that their headers \
      and numbers take.
      """)
  var size: SizePattern?
  @Option(
    in: 1...TestFrame.maximumFlows,
    help: "How many flows the frames belong to, in turn (1 to 32768).")
  var flows = 1
  @Flag(name: .customLong("ipv6"), help: "IPv6, not IPv4.") var isIPv6 = false
  @Option(in: 1...4094, help: "A VLAN tag with this number (1 to 4094).") var vlan: Int?
  @Option(help: "The MAC address that the frames go to; broadcast if not given.")
  var destination: MACAddress?
  @Option(help: "Sends the first frame of this capture, as it is, again and again.")
  var template: String?
  @Option(help: "How fast, as in 1Mpps or 500Mbit; as fast as the card takes them if not given.")
  var rate: FrameRate?
  @Option(in: 1...Int.max, help: "Ends after so many frames.") var count: Int?
  @Option(help: "Ends after this time, as in 5s.") var duration: Duration?
  @OptionGroup var metricsOptions: MetricsOptions
  @OptionGroup var cardOptions: CardOptions

  func validate() throws {
    if template != nil, flows != 1 || isIPv6 || vlan != nil || size != nil || destination != nil {
      throw ValidationError(
        "--template sends a frame as it is: leave out --size, --flows, --ipv6, --vlan and --destination."
      )
    }
    // Those of imix grow instead.
    if case .range(let sizes) = size, sizes.lowerBound < leastSize {
      throw ValidationError(
        "--size: \(sizes.lowerBound) bytes are too few; with these headers a frame has at least \(leastSize)."
      )
    }
  }

  func run() throws {
    StopSignal.install()
    let recorded = try template.map(Self.firstFrame)
    let bench = CardBench(cardOptions)
    let device = try bench.open([card], DeviceConfiguration())[0]
    let traffic = recorded.map { .template($0) } ?? numbered(from: device.macAddress)
    let pool = try Mempool(domain: bench.domain, buffers: 2048)
    var source = FrameSource(traffic, pool: pool)
    try bench.waitForLinks()
    var limits = Limits(duration: duration, count: count)
    var pace = rate.map { Pace(framesPerSecond: traffic.framesPerSecond($0)) }
    let reporter = Reporter(bench.ports, json: cardOptions.json)
    try reporter.serveMetrics(at: metricsOptions.metrics)
    var queue = try device.transmitQueue(0)
    var batch = PacketBatch(capacity: 32)
    var watch = try CardWatch(.off, bench)
    try poll(&watch, &limits, reporter) { limits in
      let wanted = min(limits.next(32), pace?.due() ?? 32)
      if wanted == 0 { return 0 }
      source.fill(&batch, upTo: wanted)
      let sent = try queue.transmit(&batch)
      // What did not fit is made again: no number is left out.
      source.takeBack(batch.count)
      batch.removeAll()
      pace?.sent(sent)
      limits.took(sent)
      return sent
    }
    try drain { try queue.reclaim() }
    reporter.finish()
    try bench.close()
  }

  private func numbered(from source: MACAddress) -> GeneratedTraffic {
    let size = size ?? .range(leastSize...leastSize)
    return .numbered(frame(size: size.limits.upperBound, from: source), size, flows: flows)
  }

  private func frame(size: Int, from source: MACAddress) -> NumberedFrame {
    NumberedFrame(
      size: size, destination: destination ?? MACAddress(bits: 0xFFFF_FFFF_FFFF), source: source,
      vlan: vlan, isIPv6: isIPv6, stream: UInt16.random(in: 1 ... .max))
  }

  /// The smallest frame with these headers, whoever sends it.
  private var leastSize: Int { frame(size: 0, from: MACAddress(bits: 0)).minimumSize }

  /// The first frame of a capture.
  private static func firstFrame(of path: String) throws -> [UInt8] {
    let reader = try PcapReader(path: path)
    guard let record = try reader.next(), unsafe (14...1514).contains(record.bytes.count),
      unsafe record.bytes.count == record.originalLength
    else {
      throw DeviceError.refused(
        "Take a frame from \(path)", found: "its first is not there whole, or does not fit a card",
        advice: "Give a capture that begins with a whole frame of 14 to 1514 bytes.")
    }
    return unsafe Array(record.bytes)
  }
}
