import Foundation
import Ixy

/// The table that is drawn anew each second on a terminal: rates, ring fill, drops, and the last half minute.
struct LiveView {
  /// How full the two rings of a queue pair are, 0 to 1; nil where there is none.
  struct Fill {
    var receive: Double?
    var transmit: Double?
  }

  /// One port in one second.
  struct Row {
    var name: String
    var step: Statistics
    /// Of each queue pair; empty where the card does not tell.
    var fills: [Fill]
    /// All frames that were dropped or damaged so far.
    var lost: UInt64
  }

  /// Whether standard output is a terminal that can move its cursor.
  static var isPossible: Bool {
    isatty(STDOUT_FILENO) == 1 && ProcessInfo.processInfo.environment["TERM"] ?? "dumb" != "dumb"
  }

  private static let seconds = 30
  private var linesDrawn = 0
  /// The frames a second of each port, both ways together.
  private var history: [[Double]] = []

  /// Draws over what was drawn before.
  mutating func draw(_ rows: [Row], seconds: Double, elapsed: Double) {
    var lines = ["\u{1B}[1m\(fixed(elapsed, 0)) s\u{1B}[0m, Ctrl-C ends"]
    if history.isEmpty { history = rows.map { _ in [] } }
    for (i, row) in rows.enumerated() {
      let step = row.step
      let rate = Double(step.receivedPackets + step.transmittedPackets) / seconds
      history[i] = (history[i] + [rate]).suffix(Self.seconds)
      lines.append("\u{1B}[1m\(row.name)\u{1B}[0m")
      // One queue pair has its bars beside the rates, several have lines of their own.
      let only = row.fills.count == 1 ? row.fills[0] : Fill()
      lines.append(Self.line("in", step.receivedPackets, step.receivedBytes, seconds, only.receive))
      lines.append(
        Self.line("out", step.transmittedPackets, step.transmittedBytes, seconds, only.transmit))
      for (id, fill) in row.fills.enumerated() where row.fills.count > 1 {
        let (receive, transmit) = (fill.receive.map(Self.bar), fill.transmit.map(Self.bar))
        lines.append(
          "  queue \(id)".padded(12) + "in \(receive ?? "?")".padded(28) + "out \(transmit ?? "?")")
      }
      let drops = row.step.receiveDropped + row.step.transmitDropped + row.step.receiveErrors
      lines.append("  lost \(drops) now, \(row.lost) in all".padded(48) + Self.spark(history[i]))
    }
    // Up to where the last table began; each line ends by clearing what was longer before.
    let up = linesDrawn > 0 ? "\u{1B}[\(linesDrawn)A" : ""
    output(up + lines.map { $0 + "\u{1B}[K" }.joined(separator: "\n"))
    linesDrawn = lines.count
  }

  private static func line(
    _ name: String, _ packets: UInt64, _ bytes: UInt64, _ seconds: Double, _ fill: Double?
  ) -> String {
    let megabits = Double(bytes + 24 * packets) * 8 / 1e6 / seconds
    let rate = frameRate(Double(packets) / seconds)
    let text =
      "  \(name.padded(4)) \(rate.padded(14)) \((fixed(megabits, 0) + " Mbit/s").padded(16))"
    return fill.map { text.padded(40) + "ring " + bar($0) } ?? text
  }

  /// A bar of twenty places.
  static func bar(_ part: Double) -> String {
    let full = Int((max(0, min(1, part)) * 20).rounded())
    return "[" + String(repeating: "#", count: full) + String(repeating: " ", count: 20 - full)
      + "]"
  }

  /// The rates as little columns, the highest of them full.
  static func spark(_ rates: [Double]) -> String {
    let columns = Array("▁▂▃▄▅▆▇█")
    let top = rates.max() ?? 0
    return String(rates.map { top > 0 ? columns[Int(($0 / top * 7).rounded())] : columns[0] })
  }
}

/// How full the rings of a card of Intel's are, by its registers.
struct RingFill {
  private let bar: BAR
  private let driver: String

  /// Nil for other cards.
  init?(_ device: any EthernetDevice, _ bus: any PCIDevice) {
    driver = device.driverName
    guard RingRegisters(receive: 0, of: driver) != nil, let bar = try? bus.bar(0) else {
      return nil
    }
    self.bar = bar
  }

  /// Frames that wait for the driver.
  func receive(_ queue: Int) -> Double? {
    ring(RingRegisters(receive: queue, of: driver)).map { size, free in
      1 - Double(free + 1) / Double(size)
    }
  }

  /// Frames that wait for the card.
  func transmit(_ queue: Int) -> Double? {
    ring(RingRegisters(transmit: queue, of: driver)).map { size, waiting in
      Double(waiting) / Double(size)
    }
  }

  /// The descriptors of a ring, and those from head to tail, which are the card's.
  private func ring(_ registers: RingRegisters?) -> (size: Int, cards: Int)? {
    guard let registers else { return nil }
    func read(_ offset: Int) -> Int { Int(truncatingIfNeeded: bar.read(offset, width: 4)) }
    let size = read(registers.length) / 16
    let (head, tail) = (read(registers.head), read(registers.tail))
    guard size > 0, head < size, tail < size else { return nil }
    return (size, (tail - head + size) % size)
  }
}
