import Foundation
import Ixy

/// Forwards between two ports on this thread until a limit is reached, then lets the transmit rings run empty.
///
/// Two ixgbe cards take the fused path; any other pair goes through batches.
func forwardHere(
  _ ports: [Port], _ pool: Mempool, _ load: Load, _ watch: inout CardWatch,
  _ limits: inout Limits, _ reporter: Reporter
) throws {
  if let a = ports[0].device as? IxgbeDevice, let b = ports[1].device as? IxgbeDevice {
    var lane = try FusedLane(a, b, 0, pool, load)
    try run(&lane, &watch, &limits, reporter)
  } else {
    var lane = try BatchLane(
      ports[0].device, ports[1].device, 0, pool, load, (ports[0].drops, ports[1].drops))
    try run(&lane, &watch, &limits, reporter)
  }
}

/// Forwards between two ixgbe ports without a mempool, until a limit is reached.
func forwardInPlace(
  _ ports: [Port], _ load: Load, _ watch: inout CardWatch, _ limits: inout Limits,
  _ reporter: Reporter
) throws {
  guard let a = ports[0].device as? IxgbeDevice, let b = ports[1].device as? IxgbeDevice else {
    throw DeviceError.refused(
      "Forward in place", found: "\(ports[0].device.driverName) and \(ports[1].device.driverName)",
      advice: "Only ixgbe cards can; forward without --in-place.")
  }
  var lane = try InPlaceLane(a, b, load)
  try run(&lane, &watch, &limits, reporter)
}

private func run<L: Lane & ~Copyable>(
  _ lane: inout L, _ watch: inout CardWatch, _ limits: inout Limits, _ reporter: Reporter
) throws {
  try poll(&watch, &limits, reporter) { limits in try lane.step(&limits) }
  try drain { try lane.pending() }
}

/// Calls `step`, which says how much it did, until a limit is reached; reports each second.
func poll(
  _ watch: inout CardWatch, _ limits: inout Limits, _ reporter: Reporter,
  _ step: (inout Limits) throws -> Int
) throws {
  while true {
    // The clock costs as much as a packet or two: look at it now and then.
    var moved = 0
    for _ in 0..<64 {
      let count = try step(&limits)
      moved += count
      if limits.left == 0 { break }
    }
    if limits.isOver(wasBusy: moved > 0) { return }
    if try reporter.tick() { watch.tick() }
    try watch.rest(moved: moved)
  }
}

/// Waits until the cards have taken all that is in their transmit rings, and says what they have not.
///
/// It ends when they have taken nothing for thirty seconds, because a card in another process may get no processor for
/// long; after a minute, however slowly they go on; and two seconds after Ctrl-C.
func drain(
  isStopped: () -> Bool = { StopSignal.isRaised }, now: () -> ContinuousClock.Instant = { .now },
  _ pending: () throws -> Int
) throws {
  var (fewest, end, slowest) = (Int.max, now(), now() + .seconds(60))
  while case let count = try pending(), count > 0 {
    let now = now()
    if count < fewest { (fewest, end) = (count, now + .seconds(30)) }
    if isStopped() { slowest = min(slowest, now + .seconds(2)) }
    if now > min(end, slowest) {
      return tell("\(count) frames were not sent: the card takes none, or too few. Is its link up?")
    }
    sched_yield()
  }
}
