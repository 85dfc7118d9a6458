import Glibc

/// The earliest time of each vector's next interrupt (EITR; reference, section 4).
struct InterruptThrottle {
  private var intervals = [UInt64](repeating: 0, count: 129)
  private var quietUntil = [UInt64](repeating: 0, count: 129)

  /// Takes over a write to EITR `index`: the interval in bits 11:3, in units of 2 µs.
  ///
  /// CNT_WDIS (31) keeps the running interval; without it the next interrupt may come at once.
  mutating func set(_ index: Int, _ value: UInt32, now: UInt64) {
    guard intervals.indices.contains(index) else { return }
    intervals[index] = UInt64(value >> 3 & 0x1FF) * 2000
    let keeps = value & 1 << 31 != 0
    quietUntil[index] = keeps ? min(quietUntil[index], now &+ intervals[index]) : 0
  }

  /// Whether `vector` may be sent now; if so, its next interval starts.
  mutating func allows(_ vector: Int, at time: UInt64) -> Bool {
    guard time >= quietUntil[vector] else { return false }
    quietUntil[vector] = time &+ intervals[vector]
    return true
  }
}

/// The time since some start, in nanoseconds; never goes back.
func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
