import ArgumentParser
import Emulation
import Foundation
import Ixy

/// The command `ixy demo`.
struct DemoCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "demo",
    abstract: "Shows a forwarder at work; needs no card, no root.")

  @Option(help: "How long to forward; 5 seconds if not given.") var duration: Duration?
  @Flag(help: "Print JSON, one object a line.") var json = false
  @OptionGroup var metricsOptions: MetricsOptions

  private static let introduction = """
    Two emulated Intel 82599 cards, and between them the forwarder with its real ixgbe driver:

      generator =wire=> [card 1] => ixgbe driver => forwarder => ixgbe driver => [card 2] =wire=> sink

    The cards run on one thread and read and write descriptor rings by DMA; the driver and the forwarder
    run on another, poll the rings and ring the doorbells. Every frame carries a number, which the sink
    checks. The lines below are the forwarder's two ports, once a second.

    """

  func run() throws {
    StopSignal.install()
    let bench = CardBench()
    let cards = try ["emu:82599,wire=generator", "emu:82599,wire=sink"].map(CardName.init(typed:))
    _ = try bench.open(cards, .init())
    guard let generator = bench.wires[0] as? GeneratorWire else { return }
    let ports = bench.ports
    let reporter = Reporter(ports, json: json)
    try reporter.serveMetrics(at: metricsOptions.metrics)
    if !json { output(Self.introduction) }
    let pool = try Mempool(domain: bench.domain, buffers: 4096)
    try bench.waitForLinks()
    var limits = Limits(duration: duration ?? .seconds(5))
    limits.isEnding = { [emulation = bench.emulation] in
      // No more frames come; those that are on their way are still forwarded.
      emulation.exclusively { generator.stop() }
    }
    var watch = try CardWatch(.off, bench)
    try forwardHere(ports, pool, Load(), &watch, &limits, reporter)
    reporter.finish()
    let (sent, arrived) = (generator.counts, bench.wires[1].counts)
    try bench.close()
    try account(sent, arrived, ports)
  }

  /// Says whether every frame that was made arrived, once and in order.
  private func account(_ sent: WireCounts, _ arrived: WireCounts, _ ports: [Port]) throws {
    let isComplete =
      sent.sent == arrived.received && arrived.lost == 0 && arrived.reordered == 0 && sent.sent > 0
    let text =
      "\(sent.sent) frames were made and \(arrived.received) arrived, "
      + "\(arrived.lost) lost, \(arrived.reordered) out of order: "
      + (isComplete ? "every frame accounted for" : "NOT every frame accounted for")
    if json { tell(text) } else { output(text) }
    if !isComplete { throw ExitCode(1) }
  }
}
