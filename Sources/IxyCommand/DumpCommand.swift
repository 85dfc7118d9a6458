import ArgumentParser
import Emulation
import Foundation
import Ixy

/// The command `ixy dump CARD -w FILE`.
struct DumpCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dump", abstract: "Writes what a card receives to a capture file.")

  @Argument(help: "A card.") var card: String
  @Option(name: .short, help: "The capture file, in pcap format with nanoseconds.")
  var writeFile: String
  @Option(name: .short, help: "Ends after so many frames.") var count: Int?
  @Option(
    name: [.customShort("s"), .customLong("snaplen")], help: "The most bytes kept of a frame.")
  var snapLength = 262_144
  @Flag(name: [.customShort("p"), .long], help: "Receives only frames for this card.")
  var noPromiscuous = false
  @Option(help: "Ends after this time, as in 5s.") var duration: DurationArgument?
  @Option(help: "Ends when no frame came for this time, counted from link up.")
  var exitWhenIdle: DurationArgument?
  @Option(help: "The longest payload of a frame in bytes (68 to 9582).") var mtu = 1500
  @OptionGroup var interruptOptions: InterruptOptions
  @OptionGroup var cardOptions: CardOptions

  func validate() throws {
    if let count { try require(count, in: 1...Int.max, "-c") }
    try require(snapLength, in: 1...262_144, "-s")
    try require(mtu, in: 68...9582, "--mtu")
  }

  func run() throws {
    StopSignal.install()
    var configuration = DeviceConfiguration()
    configuration.mtu = mtu
    let writer = try PcapWriter(path: writeFile, snapLength: snapLength)
    let bench = CardBench(cardOptions)
    let device = try bench.open([card], configuration)[0]
    writer.begin()
    try device.setPromiscuous(!noPromiscuous)
    let pool = try Mempool(
      domain: bench.domain, buffers: 4096, bufferSize: configuration.bufferSize)
    let reporter = Reporter([Port(device)], json: cardOptions.json)
    try bench.waitForLinks()
    var limits = Limits(
      duration: duration?.duration, idle: exitWhenIdle?.duration, count: count)
    var watch = try CardWatch(interruptOptions.interrupts, bench)
    do {
      try capture(device, pool, into: writer, &watch, &limits, reporter)
    } catch {
      // What was captured stays a valid file, whatever happened to the card.
      try? writer.close()
      throw error
    }
    try writer.close()
    reporter.finish()
    try bench.close()
  }

  private func capture(
    _ device: any EthernetDevice, _ pool: Mempool, into writer: PcapWriter,
    _ watch: inout CardWatch, _ limits: inout Limits, _ reporter: Reporter
  ) throws {
    var queue = try device.receiveQueue(0, mempool: pool)
    var batch = PacketBatch(capacity: 64)
    try poll(&watch, &limits, reporter) { limits in
      let received = try queue.receive(into: &batch, max: limits.next(64))
      if received == 0 { return 0 }
      // One reading of the clock a batch: it costs as much as a packet.
      var time = timespec()
      unsafe clock_gettime(CLOCK_REALTIME, &time)
      let nanoseconds = UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
      batch.forEach { packet in
        unsafe packet.contents.withUnsafeBytes { unsafe writer.append($0, at: nanoseconds) }
      }
      batch.removeAll()
      limits.took(received)
      if let failure = writer.failure { throw failure }
      return received
    }
  }
}
