import StandIns

/// One thing that is measured.
struct Case: Hashable {
  let card: String
  let design: String
  /// "Swift", or the compiler of the C forwarder.
  let language: String
  let batch: Int
}

/// Counts instructions under callgrind, or takes times.
struct Meter {
  enum Mode { case count, time }

  static let batches = [1, 8, 32, 64, 256]

  let mode: Mode
  /// Every round measures every case once, so that a busy machine is busy for all of them.
  let rounds: Int
  private(set) var times: [Case: [Double]] = [:]
  private(set) var order: [Case] = []

  init(_ mode: Mode, rounds: Int) {
    self.mode = mode
    self.rounds = mode == .count ? 1 : rounds
  }

  /// Runs `step`, which moves a batch through the card and the forwarder, until enough packets have passed.
  @inline(__always)
  mutating func measure(
    _ name: Case, _ card: UnsafeMutablePointer<standin>, _ step: () -> Void
  ) {
    // Whole turns of the rings, so that each measurement finds them as the one before it did.
    let steps = (mode == .count ? 1 << 14 : 1 << 17) / name.batch
    for _ in 0..<(2048 / name.batch) { step() }
    let sent = card.pointee.sent
    standin_mark()
    let start = ContinuousClock.now
    for _ in 0..<steps { step() }
    let time = ContinuousClock.now - start
    standin_mark()
    let packets = Int(card.pointee.sent - sent)
    precondition(packets == steps * name.batch, "\(name) sent \(packets) of \(steps * name.batch)")
    note(name, time / .nanoseconds(1) / Double(packets))
  }

  private mutating func note(_ name: Case, _ nanoseconds: Double) {
    if times[name] == nil { order.append(name) }
    times[name, default: []].append(nanoseconds)
  }

  /// A line for each case: card, design, language, batch and the median of its times.
  func report() {
    for name in order {
      let sorted = times[name, default: [0]].sorted()
      print(name.card, name.design, name.language, name.batch, sorted[sorted.count / 2])
    }
  }
}
