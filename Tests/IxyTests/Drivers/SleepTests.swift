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

  /// Two cards on a thread of their own: bursts and gaps of random length at one, silence at the other.
  @Test func `bursts and gaps are forwarded in order while the other direction is idle`() throws {
    let (busy, idle) = (BurstWire(bursts: 3_000), BurstWire(bursts: 0))
    let emulation = EmulationThread()
    let domain = DMADomain()
    var configuration = DeviceConfiguration()
    configuration.ringEntries = 64
    let cards = try [busy, idle].enumerated().map { i, wire in
      let model = try NIC82599(wire: wire, mac: MACAddress(bits: 0x02_1B_21_00_00_00 + UInt64(i)))
      return try IxgbeDevice(
        emulation.add(model, wire: wire), domain: domain, configuration: configuration)
    }
    try emulation.start()
    defer { emulation.join() }
    let pool = try Mempool(domain: domain, buffers: 1024)
    var waiter = try QueueWaiter(mode: .on)
    for card in cards {
      let interrupts = try #require(
        try waiter.enableInterrupts(of: card, throttle: .microseconds(2)))
      try waiter.add(interrupts.receive[0])
    }
    var fromBusy = try cards[0].takeReceiveQueue(0, mempool: pool)
    var fromIdle = try cards[1].takeReceiveQueue(0, mempool: pool)
    var toBusy = try cards[0].takeTransmitQueue(0)
    var toIdle = try cards[1].takeTransmitQueue(0)
    var longest = Duration.zero
    var forwarded = 0
    while emulation.exclusively({ !busy.isDone || forwarded < busy.sent }) {
      let moved = fromBusy.forward(to: &toIdle, max: 32) { _ in .send }
      forwarded += moved
      let back = fromIdle.forward(to: &toBusy, max: 32) { _ in .send }
      let before = ContinuousClock.now
      // Behind a full ring frames may wait, for which no interrupt comes any more.
      let left = toIdle.isFull || toBusy.isFull ? 1 : 0
      // More frames come, within a millisecond: nothing but an interrupt may end this.
      try waiter.wait(moved: moved + back + left, timeout: .seconds(60))
      longest = max(longest, ContinuousClock.now - before)
    }
    let deadline = ContinuousClock.now + .seconds(60)
    while emulation.exclusively({ idle.arrived < busy.sent }) {
      try #require(ContinuousClock.now < deadline, "\(idle.arrived) of \(busy.sent) arrived")
      usleep(1000)
    }
    #expect(idle.disorder == 0)
    #expect(waiter.sleeps > 200, "it hardly ever slept: the test shows nothing")
    // The gaps are shorter than a millisecond; a minute would be a frame slept over.
    #expect(longest < .seconds(10))
    _ = consume fromBusy
    _ = consume fromIdle
    _ = consume toBusy
    _ = consume toIdle
  }
}

/// A broadcast frame with a number in it.
private func numbered(_ number: Int) -> [UInt8] {
  var bytes = frame(0)
  for i in 0..<8 { bytes[16 + i] = UInt8(truncatingIfNeeded: number >> (8 * i)) }
  return bytes
}

private func number(_ bytes: some Collection<UInt8>) -> Int {
  Array(bytes)[16..<24].reversed().reduce(0) { $0 << 8 | Int($1) }
}

/// A wire that gives bursts of 1 to 8 numbered frames with gaps of up to 300 microseconds between them, and
/// checks the numbers of what it takes.
private final class BurstWire: Wire {
  let kind = "burst"
  let waitsForDescriptors = true
  let isConnected = true
  let readiness: Int32? = nil
  let canSend = true
  var counts = WireCounts()
  private var burstsLeft: Int
  private var left = 0
  private var next = ContinuousClock.now
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 2048, alignment: 64)
  private(set) var sent = 0
  private(set) var arrived = 0
  private(set) var disorder = 0

  init(bursts: Int) { burstsLeft = bursts }
  deinit { buffer.deallocate() }

  var isDone: Bool { burstsLeft == 0 && left == 0 }

  func nextFrame() -> UnsafeRawBufferPointer? {
    if left == 0 {
      if burstsLeft == 0 || ContinuousClock.now < next { return nil }
      burstsLeft -= 1
      left = Int.random(in: 1...8)
    }
    let bytes = numbered(sent)
    buffer.copyBytes(from: bytes)
    return UnsafeRawBufferPointer(rebasing: buffer[..<bytes.count])
  }

  func takeFrame() {
    sent += 1
    left -= 1
    if left == 0 { next = .now + .microseconds(Int.random(in: 0...300)) }
  }

  func send(_ frame: UnsafeRawBufferPointer) {
    if number(frame) != arrived { disorder += 1 }
    arrived += 1
  }

  func receiverChanged(isOn: Bool) {}
  func close() throws(DeviceError) {}
}
