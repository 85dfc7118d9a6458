/// How long frames were under way: a histogram whose steps are 3 % of the time, so that it never grows.
public struct Latencies: Sendable {
  /// Steps between a time and its double.
  private static let steps = 32
  private var counts = [UInt64](repeating: 0, count: 64 * steps)
  /// How many times were added.
  public private(set) var count: UInt64 = 0
  /// The longest, in nanoseconds.
  public private(set) var max: UInt64 = 0

  /// None yet.
  public init() {}

  /// Adds the time that a numbered frame took until `now`, in nanoseconds of the clock that made it.
  public mutating func add(_ frame: TestFrame, at now: UInt64) {
    let time = (now &- frame.time) % TestFrame.timePeriod
    // More than a day and a half is the clock of another machine.
    if time < TestFrame.timePeriod / 2 { add(time) }
  }

  /// Adds a time in nanoseconds.
  public mutating func add(_ time: UInt64) {
    counts[Self.index(time)] += 1
    count += 1
    if time > max { max = time }
  }

  /// The time that a part of all frames, 0 to 1, did not exceed; nil when there were none.
  public func percentile(_ part: Double) -> UInt64? {
    if count == 0 { return nil }
    let rank = Swift.max(1, UInt64((part * Double(count)).rounded(.up)))
    var seen: UInt64 = 0
    for (index, n) in counts.enumerated() {
      seen += n
      if seen >= rank { return Swift.min(max, Self.end(of: index)) }
    }
    return max
  }

  /// Up to 63 each time has its own step; then 32 steps to each doubling.
  private static func index(_ time: UInt64) -> Int {
    if time < 2 * UInt64(steps) { return Int(time) }
    let doublings = 58 - time.leadingZeroBitCount
    return doublings * steps + Int(time >> UInt64(doublings))
  }

  /// The longest time of a step.
  private static func end(of index: Int) -> UInt64 {
    if index < 2 * steps { return UInt64(index) }
    let doublings = index / steps - 1
    let place = UInt64(index - doublings * steps)
    // The last step ends where the numbers do.
    return (place + 1) << UInt64(doublings) &- 1
  }
}
