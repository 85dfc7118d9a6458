import Glibc

/// The time of day: nanoseconds since 1970.
func nanosecondsSince1970() -> UInt64 { read(CLOCK_REALTIME) }

/// Nanoseconds of a clock that nobody sets, the same for all processes of a machine.
func monotonicTime() -> UInt64 { read(CLOCK_MONOTONIC) }

private func read(_ clock: clockid_t) -> UInt64 {
  var time = timespec()
  unsafe clock_gettime(clock, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
