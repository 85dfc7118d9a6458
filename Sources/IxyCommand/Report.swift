import Emulation
import Foundation
import Ixy
import Synchronization

/// One port of a command, as it is reported.
final class Port {
  let device: any EthernetDevice
  /// Frames that the command dropped because the port's ring was full.
  let drops = DropCounter()
  private let fill: RingFill?
  private var last = Statistics()

  convenience init(_ device: any EthernetDevice) { self.init(device, nil) }

  init(_ device: any EthernetDevice, _ bus: (any PCIDevice)?) {
    self.device = device
    fill = bus.flatMap { RingFill(device, $0) }
  }

  var name: String { device.name }

  /// How full the rings of each queue pair are, where the card tells.
  var fills: [LiveView.Fill] {
    guard let fill else { return [] }
    let counts = device.queueCounts
    return (0..<max(counts.receive, counts.transmit)).map { id in
      LiveView.Fill(
        receive: id < counts.receive ? fill.receive(id) : nil,
        transmit: id < counts.transmit ? fill.transmit(id) : nil)
    }
  }

  /// What each of several queue pairs has counted since the card was opened; empty for a single one.
  ///
  /// Read from memory that the queues' threads write, without a lock.
  var queues: [QueueReport] {
    let counts = device.queueCounts
    let pairs = min(counts.receive, counts.transmit)
    if pairs < 2 { return [] }
    return (0..<pairs).map {
      QueueReport(device.receiveStatistics($0), device.transmitStatistics($0))
    }
  }

  /// What the port has counted, with what the command has.
  func statistics() -> Statistics {
    var all = device.statistics()
    all.transmitDropped += drops.count
    return all
  }

  /// What was counted since the last call.
  func step() -> Statistics {
    let now = statistics()
    defer { last = now }
    return now.since(last)
  }
}

/// A counter that several threads add to.
final class DropCounter: Sendable {
  private let frames = Atomic<UInt64>(0)

  var count: UInt64 { frames.load(ordering: .relaxed) }

  func add(_ more: Int) { frames.add(UInt64(more), ordering: .relaxed) }
}

/// Prints a line per port and second, or on a terminal a table; and the summary.
final class Reporter {
  private let ports: [Port]
  private let json: Bool
  private let print: (String) -> Void
  private var live: LiveView?
  private var metrics: MetricsServer?
  private let start = ContinuousClock.now
  private var last = ContinuousClock.now

  /// A reporter that prints to standard output, unless that has other uses.
  init(_ ports: [Port], json: Bool, print: ((String) -> Void)? = nil) {
    self.ports = ports
    self.json = json
    self.print = print ?? { output($0) }
    if print == nil, !json, LiveView.isPossible { live = LiveView() }
  }

  /// Serves the counters at an address, if there is one (--metrics).
  func serveMetrics(at address: MetricsAddress?) throws(DeviceError) {
    guard let address else { return }
    metrics = try MetricsServer(at: address)
    publish()
  }

  private func publish() { metrics?.publish(ports.map { ($0.name, $0.statistics()) }) }

  /// How long the command has run.
  var elapsed: Duration { ContinuousClock.now - start }

  /// Prints the statistics of the last second, when one is over, and says whether it is.
  ///
  /// Throws when a card is gone: its rings just stay as they are, so that nothing else would notice.
  func tick() throws -> Bool {
    let now = ContinuousClock.now
    if now - last < .seconds(1) { return false }
    for port in ports { _ = try port.device.link() }
    let seconds = (now - last) / .seconds(1)
    last = now
    let steps = ports.map { (port: $0, step: $0.step()) }
    publish()
    if json {
      print(
        jsonLine(Event(event: "stats", duration_s: seconds, ports: steps.map(PortReport.init))))
    } else if live != nil {
      live?.draw(steps.map(Self.row), seconds: seconds, elapsed: elapsed / .seconds(1))
    } else {
      for (port, step) in steps { print(Self.line(port.name, step, seconds)) }
    }
    return true
  }

  /// Prints the totals.
  func finish() {
    let seconds = elapsed / .seconds(1)
    let totals = ports.map { (port: $0, step: $0.statistics()) }
    if json {
      print(
        jsonLine(Event(event: "summary", duration_s: seconds, ports: totals.map(PortReport.init))))
      return
    }
    for (port, all) in totals {
      print(Self.total(port.name, all, seconds))
      for (id, queue) in port.queues.enumerated() {
        print(
          "  queue \(id): received \(queue.rx_packets) packets (\(queue.rx_bytes) bytes), "
            + "sent \(queue.tx_packets) (\(queue.tx_bytes) bytes)")
      }
    }
  }

  private static func row(_ port: Port, _ step: Statistics) -> LiveView.Row {
    let all = port.statistics()
    return LiveView.Row(
      name: port.name, step: step, fills: port.fills,
      lost: all.receiveDropped + all.transmitDropped + all.receiveErrors)
  }

  /// The line of one port at the end.
  static func total(_ name: String, _ all: Statistics, _ seconds: Double) -> String {
    // A card takes frames until it is stopped, although nobody asks for them any more.
    let late = all.receiveDropped > 0 ? " (those after the end, too)" : ""
    return "\(name): received \(all.receivedPackets) packets (\(all.receivedBytes) bytes), "
      + "sent \(all.transmittedPackets) (\(all.transmittedBytes) bytes), "
      + "dropped \(all.receiveDropped) on arrival\(late) and \(all.transmitDropped) to send, "
      + "\(all.receiveErrors) errors, in \(fixed(seconds, 1)) s"
  }

  /// The line of one port and second.
  static func line(_ name: String, _ step: Statistics, _ seconds: Double) -> String {
    let rx = rates(step.receivedPackets, step.receivedBytes, seconds)
    let tx = rates(step.transmittedPackets, step.transmittedBytes, seconds)
    return "\(name): rx \(rx), tx \(tx), drops \(step.receiveDropped + step.transmitDropped), "
      + "errors \(step.receiveErrors)"
  }

  /// Frames and megabits a second; on the wire each frame takes 24 bytes more.
  private static func rates(_ packets: UInt64, _ bytes: UInt64, _ seconds: Double) -> String {
    let megabits = Double(bytes + 24 * packets) * 8 / 1e6 / seconds
    return "\(frameRate(Double(packets) / seconds)), \(fixed(megabits, 0)) Mbit/s"
  }
}

/// Frames a second in the unit that fits: `12.34 Mpps`, `5 pps`.
func frameRate(_ perSecond: Double) -> String {
  switch perSecond {
  case 1e6...: fixed(perSecond / 1e6, 2) + " Mpps"
  case 1e4...: fixed(perSecond / 1e3, 1) + " kpps"
  default: fixed(perSecond, 0) + " pps"
  }
}

func fixed(_ number: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", number) }

/// The fields of a port in JSON; the names are part of the interface.
struct PortReport: Encodable {
  var name: String
  var rx_packets: UInt64
  var rx_bytes: UInt64
  var tx_packets: UInt64
  var tx_bytes: UInt64
  var rx_dropped: UInt64
  var tx_dropped: UInt64
  var rx_errors: UInt64
  /// Since the card was opened, also in the events of a second.
  var queues: [QueueReport]

  init(_ port: Port, _ counts: Statistics) {
    name = port.name
    rx_packets = counts.receivedPackets
    rx_bytes = counts.receivedBytes
    tx_packets = counts.transmittedPackets
    tx_bytes = counts.transmittedBytes
    rx_dropped = counts.receiveDropped
    tx_dropped = counts.transmitDropped
    rx_errors = counts.receiveErrors
    queues = port.queues
  }
}

/// The fields of a queue pair in JSON; the names are part of the interface.
struct QueueReport: Encodable {
  var rx_packets: UInt64
  var rx_bytes: UInt64
  var tx_packets: UInt64
  var tx_bytes: UInt64

  init(_ received: QueueStatistics, _ transmitted: QueueStatistics) {
    (rx_packets, rx_bytes) = (received.packets, received.bytes)
    (tx_packets, tx_bytes) = (transmitted.packets, transmitted.bytes)
  }
}

/// A line of JSON about ports.
struct Event: Encodable {
  var event: String
  var duration_s: Double
  var ports: [PortReport]
}

/// An object as one line of JSON.
func jsonLine(_ object: some Encodable) -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  return (try? encoder.encode(object)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
}

/// Prints an object as one line of JSON.
func output(_ object: some Encodable) { output(jsonLine(object)) }

/// Prints a line at once, so that whoever reads a pipe sees it.
func output(_ line: String) {
  print(line)
  if fflush(nil) == 0 { return }
  // Nobody reads any more (a pipe into head): that is a wish to end, too. A full disk is an error.
  if errno != EPIPE { StopSignal.outputError.store(errno, ordering: .relaxed) }
  StopSignal.raise()
}

/// Prints a message for the user, beside the output.
func tell(_ text: String) {
  FileHandle.standardError.write(Data((text + "\n").utf8))
}
