import ArgumentParser
import Ixy

/// The command `ixy bench`.
struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measures what a packet costs; needs no card, no root.",
    discussion: """
      A stand-in marks descriptors done in the driver's thread, so what is measured is the driver and not a card.
      The designs: batch (receive a batch, change a byte of each packet, send the batch), fused (all in one pass), \
      in-place (one ring, no mempool) and single (packet by packet).
      """)

  @Option(in: 1...9, help: "How many seconds to measure (1 to 9).") var seconds = 4
  @Flag(help: "Print JSON, one object a line.") var json = false

  func run() throws {
    StopSignal.install()
    let results = try measureDesigns(for: .seconds(seconds))
    if !json { output(Self.head) }
    for result in results {
      json ? output(result) : output(result.line)
    }
    if !json { output(Self.foot) }
  }

  private static let head = "design    batch   ns/packet      Mpps   cycles/packet"
  private static let foot = """
    25 million packets a second on a core of 3 GHz leave 120 cycles for each. Times are medians, and include the
    stand-in. Documentation/performance.md tells what to do where a real card is slower than this.
    """
}

/// What a packet costs.
struct BenchResult: Encodable {
  var design: String
  var batch: Int
  var ns_per_packet: Double
  var mpps: Double
  var cycles_per_packet: Double

  var line: String {
    func right(_ number: Double, _ digits: Int, _ width: Int) -> String {
      let text = fixed(number, digits)
      return String(repeating: " ", count: max(0, width - text.count)) + text
    }
    let name = design + String(repeating: " ", count: max(0, 10 - design.count))
    return name + right(Double(batch), 0, 5) + right(ns_per_packet, 1, 12) + right(mpps, 1, 10)
      + right(cycles_per_packet, 0, 16)
  }
}

/// Measures all designs in turn, again and again, so that a busy machine is busy for all of them.
private func measureDesigns(for time: Duration) throws -> [BenchResult] {
  let deadline = ContinuousClock.now + time
  var timer = BenchTimer()
  let (domain, card) = (DMADomain(), try StandInCard())
  let device = try IxgbeDevice(card, domain: domain)
  let pool = try Mempool(domain: domain, buffers: 4096)
  var rx = try device.takeReceiveQueue(0, mempool: pool)
  var tx = try device.takeTransmitQueue(0)
  let (otherDomain, otherCard) = (DMADomain(), try StandInCard())
  var configuration = DeviceConfiguration()
  // What is not sent yet takes up room that is to be received into.
  configuration.ringEntries = 1024
  let other = try IxgbeDevice(otherCard, domain: otherDomain, configuration: configuration)
  var forwarder = try other.takeInPlaceForwarder(to: other)
  repeat {
    timer.measureClock()
    for size in [1, 8, 32, 64, 256] {
      var batch = PacketBatch(capacity: size)
      timer.measure("batch", size, card) {
        card.step(size, isLegacy: false)
        batched(&rx, &tx, &batch)
      }
      timer.measure("fused", size, card) {
        card.step(size, isLegacy: false)
        fused(&rx, &tx, size)
      }
      timer.measure("in-place", size, otherCard) {
        otherCard.step(size, isLegacy: true)
        inPlace(&forwarder, size)
      }
      timer.measure("single", size, card) {
        card.step(size, isLegacy: false)
        single(&rx, &tx, &batch)
      }
    }
  } while ContinuousClock.now < deadline && !StopSignal.isRaised
  return timer.results()
}

// The forwarders, as an application writes them; never inlined, as they are not in one.

@inline(never) private func batched(
  _ rx: inout IxgbeReceiveQueue, _ tx: inout IxgbeTransmitQueue, _ batch: inout PacketBatch
) {
  rx.receive(into: &batch)
  batch.forEach { $0[1] &+= 1 }
  tx.transmit(&batch)
  batch.removeAll()
}

@inline(never) private func fused(
  _ rx: inout IxgbeReceiveQueue, _ tx: inout IxgbeTransmitQueue, _ batch: Int
) {
  rx.forward(to: &tx, max: batch) { packet in
    packet[1] &+= 1
    return .send
  }
}

@inline(never) private func inPlace(_ forwarder: inout IxgbeInPlaceForwarder, _ batch: Int) {
  forwarder.forward(max: batch) { frame in
    frame[1] &+= 1
    return .send
  }
}

@inline(never) private func single(
  _ rx: inout IxgbeReceiveQueue, _ tx: inout IxgbeTransmitQueue, _ batch: inout PacketBatch
) {
  rx.receive(into: &batch)
  while var packet = batch.popFirst() {
    packet[1] &+= 1
    if let unsent = tx.transmit(packet) { _ = consume unsent }
  }
}

/// Takes times, and the length of a cycle.
private struct BenchTimer {
  private struct Design: Hashable {
    let name: String
    let batch: Int
  }

  private var times: [Design: [Double]] = [:]
  private var order: [Design] = []
  private var cycles: [Double] = []

  @inline(__always)
  mutating func measure(_ name: String, _ batch: Int, _ card: StandInCard, _ step: () -> Void) {
    let sent = card.sent
    let start = ContinuousClock.now
    for _ in 0..<((1 << 14) / batch) { step() }
    let time = ContinuousClock.now - start
    let design = Design(name: name, batch: batch)
    if times[design] == nil { order.append(design) }
    times[design, default: []].append(time / .nanoseconds(max(1, card.sent - sent)))
  }

  /// Measures a chain of shifts and exclusive ors, of which each waits for the one before: a cycle each.
  ///
  /// The clock of the processor changes with its load, so that what a file says of it is of no use.
  mutating func measureClock() {
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    let (start, rounds) = (ContinuousClock.now, 20_000)
    for _ in 0..<rounds {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
    }
    let time = ContinuousClock.now - start
    // Never 0, but the compiler does not know; so it has to calculate it.
    if state != 0 { cycles.append(time / .nanoseconds(6 * rounds)) }
  }

  func results() -> [BenchResult] {
    let cycle = Self.median(cycles)
    return order.map { design in
      let time = Self.median(times[design, default: []])
      return BenchResult(
        design: design.name, batch: design.batch, ns_per_packet: time, mpps: 1000 / time,
        cycles_per_packet: time / cycle)
    }
  }

  private static func median(_ numbers: [Double]) -> Double {
    let sorted = numbers.sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
  }
}
