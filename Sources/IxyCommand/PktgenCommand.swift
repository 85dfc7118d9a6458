import ArgumentParser
import Emulation
import Foundation
import Ixy

/// The command `ixy pktgen CARD`.
struct PktgenCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pktgen", abstract: "Sends numbered UDP frames.")

  @Argument(help: "A card.") var card: String
  @Option(help: "The size of each frame in bytes, without FCS (60 to 1514).") var size = 60
  @Option(help: "How fast, as in 1Mpps or 500Mbit; as fast as the card takes them if not given.")
  var rate: RateArgument?
  @Option(help: "Ends after so many frames.") var count: Int?
  @Option(help: "Ends after this time, as in 5s.") var duration: DurationArgument?
  @OptionGroup var cardOptions: CardOptions

  func validate() throws {
    try require(size, in: 60...1514, "--size")
    if let count { try require(count, in: 1...Int.max, "--count") }
  }

  func run() throws {
    StopSignal.install()
    let bench = CardBench(cardOptions)
    let device = try bench.open([card], DeviceConfiguration())[0]
    let port = Port(device)
    let pool = try Mempool(domain: bench.domain, buffers: 2048)
    var source = FrameSource(size: size, device: device, pool: pool)
    try bench.waitForLinks()
    var limits = Limits(duration: duration?.duration, count: count)
    var pace = rate.map { Pace(framesPerSecond: $0.rate.framesPerSecond(size: size)) }
    let reporter = Reporter([port], json: cardOptions.json)
    var queue = try device.transmitQueue(0)
    var batch = PacketBatch(capacity: 32)
    var watch = try CardWatch(.off, bench)
    try poll(&watch, &limits, reporter) { limits in
      let wanted = min(limits.next(32), pace?.due() ?? 32)
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
}

/// Makes numbered frames in packets of a pool.
struct FrameSource: ~Copyable {
  private let template: TestFrameTemplate
  private let pool: Mempool
  private var sequence: UInt64 = 0

  /// Writes what all frames share into every buffer of the pool; it stays there.
  init(size: Int, device: any EthernetDevice, pool: Mempool) {
    template = TestFrameTemplate(
      size: size, destination: MACAddress(bits: 0xFFFF_FFFF_FFFF), source: device.macAddress,
      stream: UInt16.random(in: 1 ... .max))
    self.pool = pool
    var all = PacketBatch(capacity: pool.capacity)
    while var packet = pool.packet(length: size) {
      var bytes = packet.bytes
      unsafe bytes.withUnsafeMutableBytes { frame in
        if let base = frame.baseAddress { unsafe template.write(to: base) }
      }
      all.append(packet)
    }
  }

  /// Adds frames to a batch until it has `count`, or the pool is empty.
  mutating func fill(_ batch: inout PacketBatch, upTo count: Int) {
    let time = clock_gettime_nsec()
    while batch.count < count, var packet = pool.packet(length: template.size) {
      var bytes = packet.bytes
      unsafe bytes.withUnsafeMutableBytes { frame in
        if let base = frame.baseAddress {
          unsafe template.number(base, flow: 0, sequence: sequence, time: time)
        }
      }
      sequence &+= 1
      batch.append(packet)
    }
  }

  /// The last `count` frames were not sent.
  mutating func takeBack(_ count: Int) { sequence &-= UInt64(count) }
}

/// How many frames are due at a rate.
struct Pace {
  private let framesPerSecond: Double
  private let start = ContinuousClock.now
  private var done = 0

  init(framesPerSecond: Double) { self.framesPerSecond = framesPerSecond }

  /// The frames that should have been sent by now and were not.
  func due() -> Int {
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    return max(0, Int(seconds * framesPerSecond) - done)
  }

  mutating func sent(_ count: Int) { done += count }
}

/// The monotonic clock in nanoseconds.
func clock_gettime_nsec() -> UInt64 {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
