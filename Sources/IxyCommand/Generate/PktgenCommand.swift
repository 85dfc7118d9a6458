import ArgumentParser
import Emulation
import Ixy

/// The command `ixy pktgen CARD`.
struct PktgenCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pktgen",
    abstract: "Sends frames: numbered ones for ixy sink, or one of a capture.")

  @Argument(help: "A card.") var card: String
  @Option(help: "The size of frames in bytes, without FCS: 60, 60-1514 or imix.")
  var size = SizePattern.range(60...60)
  @Option(help: "How many flows the frames belong to, in turn (1 to 32768).") var flows = 1
  @Flag(name: .customLong("ipv6"), help: "IPv6, not IPv4.") var isIPv6 = false
  @Option(help: "A VLAN tag with this number (1 to 4094).") var vlan: Int?
  @Option(help: "The MAC address that the frames go to; broadcast if not given.")
  var destination: MACAddress?
  @Option(help: "Sends the first frame of this capture, as it is, again and again.")
  var template: String?
  @Option(help: "How fast, as in 1Mpps or 500Mbit; as fast as the card takes them if not given.")
  var rate: RateArgument?
  @Option(help: "Ends after so many frames.") var count: Int?
  @Option(help: "Ends after this time, as in 5s.") var duration: DurationArgument?
  @OptionGroup var cardOptions: CardOptions

  func validate() throws {
    try require(flows, in: 1...TestFrame.maximumFlows, "--flows")
    if let vlan { try require(vlan, in: 1...4094, "--vlan") }
    if let count { try require(count, in: 1...Int.max, "--count") }
    if template != nil {
      let isOther = flows != 1 || isIPv6 || vlan != nil || size != .range(60...60)
      if isOther || destination != nil {
        throw ValidationError("With --template the frame is as it is in the file.")
      }
    }
    // The shortest frames grow until their numbers fit.
    try require(size.limits.lowerBound, in: 60...1514, "--size")
    try require(size.limits.upperBound, in: 60...1514, "--size")
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
    var limits = Limits(duration: duration?.duration, count: count)
    var pace = rate.map { Pace(framesPerSecond: traffic.framesPerSecond($0.rate)) }
    let reporter = Reporter(bench.ports, json: cardOptions.json)
    try reporter.serveMetrics(at: cardOptions.metrics)
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
    let stream = UInt16.random(in: 1 ... .max)
    let destination = destination ?? MACAddress(bits: 0xFFFF_FFFF_FFFF)
    let frame = NumberedFrame(
      size: size.limits.upperBound, destination: destination, source: source, vlan: vlan,
      isIPv6: isIPv6, stream: stream)
    return .numbered(frame, size, flows: flows)
  }

  /// The first frame of a capture.
  private static func firstFrame(of path: String) throws -> [UInt8] {
    let reader = try PcapReader(path: path)
    guard let record = try reader.next(), unsafe (14...1514).contains(record.bytes.count),
      unsafe record.bytes.count == record.originalLength
    else {
      throw DeviceError.refused(
        "Take a frame from \(path)", found: "its first is not there whole, or has over 1514 bytes",
        advice: "")
    }
    return unsafe Array(record.bytes)
  }
}

extension MACAddress: ExpressibleByArgument {
  /// Parses the command line's word for an address.
  public init?(argument: String) { self.init(argument) }
}
