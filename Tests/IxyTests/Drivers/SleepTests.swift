import Emulation
import Glibc
import Testing

@testable import Ixy

/// Between sleeping and polling no frame is lost or late: real driver, emulated card.
@Suite struct SleepTests {
  /// When the next burst arrives, seen from the thread that serves the queue.
  private enum Arrival: CaseIterable {
    case whilePolling, beforeEnabling, afterEnabling, beforeSleeping
  }

  /// 10,000 switches, each with a burst at another moment; one thread, so that each moment is met exactly.
  @Test func `a burst at any moment of the switch is received at once`() throws {
    let bench = try IxgbeTestBench()
    let interrupts = try bench.device.enableInterrupts(throttle: .zero)
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var waiter = try QueueWaiter(mode: .on)
    try waiter.add(interrupts.receive[0])
    var batch = PacketBatch(capacity: 64)
    var (sent, received) = (0, 0)
    let random = { (n: Int) in Int.random(in: 0..<n) }
    func burst() {
      for _ in 0...random(5) {
        bench.wire.incoming.append(numbered(sent))
        sent += 1
      }
      bench.settle()
    }
    func look() throws -> Int {
      let count = queue.receive(into: &batch)
      for bytes in batch.takeBytes() {
        try #require(number(bytes) == received)
        received += 1
      }
      return count
    }
    var slept = 0
    for _ in 0..<10_000 {
      let arrival = Arrival.allCases[random(4)]
      if arrival == .whilePolling { burst() }
      _ = try look()
      try waiter.wait(moved: 1)
      if arrival == .beforeEnabling { burst() }
      // Empty at the first look: this enables the interrupt.
      try waiter.wait(moved: 0)
      if arrival == .afterEnabling { burst() }
      let moved = try look()
      if arrival == .beforeSleeping {
        // Not woken by what an earlier round has left behind.
        if !isReadable(interrupts.receive[0].eventFD) { slept += 1 }
        burst()
      }
      let start = ContinuousClock.now
      // Sleeps for a minute unless something is there.
      try waiter.wait(moved: moved, timeout: sent == received ? .zero : .seconds(60))
      try #require(ContinuousClock.now - start < .seconds(30), "slept over a frame: \(arrival)")
      _ = try look()
      try #require(sent == received, "\(arrival)")
    }
    #expect(slept > 500, "an interrupt hardly ever woke it: the test shows nothing")
  }

  private func isReadable(_ file: Int32) -> Bool {
    var entry = pollfd(fd: file, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
  }
}

/// A broadcast frame with a number in it.
func numbered(_ number: Int) -> [UInt8] {
  var bytes = frame(0)
  for i in 0..<8 { bytes[16 + i] = UInt8(truncatingIfNeeded: number >> (8 * i)) }
  return bytes
}

/// The number of such a frame.
func number(_ bytes: some Collection<UInt8>) -> Int {
  Array(bytes)[16..<24].reversed().reduce(0) { $0 << 8 | Int($1) }
}
