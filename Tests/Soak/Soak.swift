import Emulation
import Glibc
import Ixy

/// Sessions one after the other on the same two cards, until the time is over.
final class Soak {
  private let seconds: Double
  private let emulation = EmulationThread()
  private let ports: [SoakPort]
  private var random: Random
  private var account = Account()
  private var events = Events()
  private var memory = Footprint()

  init(seconds: Double, rate: Int, seed: UInt64) throws {
    say("soak: \(seconds) s, \(rate) frames/s each way, seed \(seed)")
    self.seconds = seconds
    random = Random(seed: seed)
    let emulation = emulation
    ports = try (0...1).map { i in
      let address = MACAddress(bits: 0x02_1B_21_00_00_01 + UInt64(i))
      let generator = GeneratorWire(.init(), destination: address, stream: UInt16(i + 1))
      let wire = PacedWire(generator, framesPerSecond: rate)
      let model = try NIC82599(wire: wire, mac: address, family: .i82599, name: "card \(i)")
      return SoakPort(model, wire, emulation.add(model, wire: wire))
    }
  }

  /// Runs, and says whether everything is accounted for.
  func run() throws -> Bool {
    try emulation.start()
    let end = ContinuousClock.now + .seconds(seconds)
    var nextReport = ContinuousClock.now
    // Memory is judged after twenty sessions: in a short run they are short.
    let longest = max(11, min(8000, Int(20 * seconds)))
    while ContinuousClock.now < end, account.errors.isEmpty {
      let duration = Duration.milliseconds(Int.random(in: 10...longest, using: &random))
      try Session(ports: ports, emulation: emulation, isLast: false)
        .run(for: min(duration, end - ContinuousClock.now), &random, &account, &events)
      events.sessions += 1
      memory.sample()
      if ContinuousClock.now >= nextReport {
        nextReport += .seconds(60)
        say(summary)
      }
    }
    // Nothing happens in the last one, so that the last number arrives and every gap is known.
    try Session(ports: ports, emulation: emulation, isLast: true)
      .run(for: .seconds(1), &random, &account, &events)
    emulation.join()
    close()
    say(summary)
    for error in account.errors { say("ERROR: \(error)") }
    say(account.errors.isEmpty ? "every frame and buffer accounted for" : "NOT accounted for")
    return account.errors.isEmpty
  }

  /// Compares what was sent, what arrived, and what is known as lost.
  private func close() {
    let totals = ports.map(\.wire.counts)
    let (sent, received) = (
      totals.reduce(0) { $0 + $1.sent }, totals.reduce(0) { $0 + $1.received }
    )
    let known = account.lost + lostOnCables
    let missing = totals.reduce(0) { $0 + $1.lost }
    account.check(sent > 0, "no frame was sent")
    account.check(
      sent == received + known, "\(sent) sent, \(received) received, \(known) known as lost")
    account.check(missing == known, "\(missing) numbers are missing, \(known) known as lost")
    account.check(totals.allSatisfy { $0.reordered == 0 }, "frames came late or twice")
    account.check(memory.isFlat, "memory grows: \(memory)")
  }

  private var lostOnCables: UInt64 { ports.reduce(0) { $0 + $1.wire.lostOnCable } }

  /// The state of affairs in one line.
  private var summary: String {
    let counts = emulation.exclusively { ports.map(\.wire.counts) }
    return "sessions \(events.sessions), flaps \(events.flaps), resets \(events.resets), pauses "
      + "\(events.pauses); sent \(counts.reduce(0) { $0 + $1.sent }), received "
      + "\(counts.reduce(0) { $0 + $1.received }), dropped \(account.dropped), left in rings "
      + "\(account.inReceiveRings) + \(account.inTransmitRings), dropped by the forwarder "
      + "\(account.byForwarder), lost on cables \(lostOnCables); \(memory)"
  }
}

/// Prints a line at once: the output of an hour goes to a file.
func say(_ line: String) {
  _ = Array((line + "\n").utf8).withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
}
