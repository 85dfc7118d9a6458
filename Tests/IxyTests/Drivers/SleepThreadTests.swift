import Emulation
import Glibc
import Synchronization
import Testing

@testable import Ixy

/// The driver on one thread and its cards on another: bursts and gaps at one port, silence at the other.
@Suite struct SleepThreadTests {
  private let emulation = EmulationThread()
  private let domain = DMADomain()

  @Test func `10,000 switches lose no frame and an idle port delays none`() throws {
    var both = try SleepingForwarder(emulation, domain, servesIdlePort: true)
    // The same without the idle port, to compare with: the machine may be busy.
    var one = try SleepingForwarder(emulation, domain, servesIdlePort: false)
    try emulation.start()
    defer { emulation.join() }
    while both.switches < 10_000 {
      try both.run(bursts: 250)
      try one.run(bursts: 50)
    }
    // Each number was checked when it came out.
    #expect(both.disorder == 0 && one.disorder == 0)
    // Nothing but an interrupt ends a sleep of a minute before its time.
    #expect(both.longestSleep < .seconds(60))
    // The idle port's interrupt is enabled before each sleep, too, which takes its time; waiting for that
    // port would take milliseconds.
    let (withIdle, without) = (both.medianDelay, one.medianDelay)
    #expect(withIdle < without * 4 + .microseconds(500), "\(withIdle), not \(without)")
  }
}

/// Forwards what a wire gives to another port, and sleeps while it gives nothing.
private struct SleepingForwarder: ~Copyable {
  struct Stuck: Error { var forwarded: Int }

  private let wires = (busy: BurstWire(), idle: BurstWire())
  private let pool: Mempool
  private var waiter: QueueWaiter
  private var fromBusy: IxgbeReceiveQueue
  private var fromIdle: IxgbeReceiveQueue?
  private var toBusy: IxgbeTransmitQueue
  private var toIdle: IxgbeTransmitQueue
  private var forwarded = 0
  /// Sleeps that a frame has ended.
  private(set) var switches = 0
  private(set) var longestSleep = Duration.zero
  /// When the test fails instead of going on.
  private let end = ContinuousClock.now + .seconds(600)

  init(_ emulation: EmulationThread, _ domain: DMADomain, servesIdlePort: Bool) throws {
    wires.idle.source = wires.busy
    var configuration = DeviceConfiguration()
    configuration.ringEntries = 64
    let cards = try [wires.busy, wires.idle].enumerated().map { i, wire in
      let model = try NIC82599(wire: wire, mac: MACAddress(bits: 0x02_1B_21_00_00_00 + UInt64(i)))
      return try IxgbeDevice(
        emulation.add(model, wire: wire), domain: domain, configuration: configuration)
    }
    let pool = try Mempool(domain: domain, buffers: 1024)
    var waiter = try QueueWaiter(mode: .on)
    for card in servesIdlePort ? cards : [cards[0]] {
      let interrupts = try #require(
        try waiter.enableInterrupts(of: card, throttle: .microseconds(2)))
      try waiter.add(interrupts.receive[0])
    }
    let fromBusy = try cards[0].takeReceiveQueue(0, mempool: pool)
    var fromIdle: IxgbeReceiveQueue?
    if servesIdlePort { fromIdle = try cards[1].takeReceiveQueue(0, mempool: pool) }
    let toBusy = try cards[0].takeTransmitQueue(0)
    let toIdle = try cards[1].takeTransmitQueue(0)
    self.pool = pool
    self.waiter = waiter
    self.fromBusy = fromBusy
    self.fromIdle = fromIdle
    self.toBusy = toBusy
    self.toIdle = toIdle
  }

  /// Lets the wire give so many bursts, and forwards them.
  mutating func run(bursts: Int) throws {
    wires.busy.burstsLeft.add(bursts, ordering: .releasing)
    var hasSlept = false
    while wires.busy.burstsLeft.load(ordering: .acquiring) > 0
      || forwarded < wires.busy.promised.load(ordering: .acquiring)
    {
      let moved = fromBusy.forward(to: &toIdle, max: 32) { _ in .send }
      forwarded += moved
      if hasSlept, moved > 0 { switches += 1 }
      let back = fromIdle?.forward(to: &toBusy, max: 32) { _ in .send } ?? 0
      try #require(back == 0)
      let (before, sleeps) = (ContinuousClock.now, waiter.sleeps)
      guard before < end else { throw Stuck(forwarded: forwarded) }
      // More frames come, within a millisecond: nothing but an interrupt may end this.
      try waiter.wait(moved: moved + (toIdle.isFull ? 1 : 0), timeout: .seconds(60))
      hasSlept = waiter.sleeps > sleeps
      if hasSlept { longestSleep = max(longestSleep, ContinuousClock.now - before) }
    }
    let deadline = ContinuousClock.now + .seconds(60)
    while wires.idle.arrived.load(ordering: .acquiring) < forwarded {
      try #require(ContinuousClock.now < deadline, "\(forwarded) frames have not all arrived")
      usleep(100)
    }
  }

  /// Frames that came out in another order than they came in.
  var disorder: Int { wires.idle.disorder.load(ordering: .relaxed) }

  /// The time that half of the frames took at most, from card to card.
  var medianDelay: Duration {
    let delays = wires.idle.delays.withLock { $0.sorted() }
    return delays.isEmpty ? .zero : delays[delays.count / 2]
  }
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
  /// The bursts that have not begun.
  let burstsLeft = Atomic(0)
  /// The frames of those that have: counted before the first of them is to be seen.
  let promised = Atomic(0)
  let arrived = Atomic(0)
  let disorder = Atomic(0)
  /// What each frame took on its way here.
  let delays = Mutex<[Duration]>([])
  /// The wire that gave the frames that come here.
  weak var source: BurstWire?
  private var left = 0
  private var next = ContinuousClock.now
  private var taken: [ContinuousClock.Instant] = []
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 2048, alignment: 64)

  deinit { buffer.deallocate() }

  func nextFrame() -> UnsafeRawBufferPointer? {
    if left == 0 {
      if burstsLeft.load(ordering: .acquiring) == 0 || ContinuousClock.now < next { return nil }
      left = Int.random(in: 1...8)
      promised.add(left, ordering: .releasing)
      burstsLeft.subtract(1, ordering: .releasing)
    }
    let bytes = numbered(taken.count)
    buffer.copyBytes(from: bytes)
    return UnsafeRawBufferPointer(rebasing: buffer[..<bytes.count])
  }

  func takeFrame() {
    taken.append(.now)
    left -= 1
    if left == 0 { next = .now + .microseconds(Int.random(in: 0...300)) }
  }

  func send(_ frame: UnsafeRawBufferPointer) {
    let count = arrived.load(ordering: .relaxed)
    if number(frame) == count, let source {
      delays.withLock { $0.append(.now - source.taken[count]) }
    } else {
      disorder.add(1, ordering: .relaxed)
    }
    arrived.add(1, ordering: .releasing)
  }

  func receiverChanged(isOn: Bool) {}
  func close() throws(DeviceError) {}
}
