import Ixy
import Synchronization

/// One thread's queue pair, and the card's side of it.
private struct Lane: ~Copyable {
  private var rx: IxgbeReceiveQueue
  private var tx: IxgbeTransmitQueue
  private var card: StandInQueue
  private(set) var time = Duration.zero
  /// Frames that were forwarded, those before the time began included.
  private(set) var forwarded = 0

  init(_ device: IxgbeDevice, _ card: StandInCard, _ id: Int, _ domain: DMADomain) throws {
    let pool = try Mempool(domain: domain, buffers: 4096)
    let rx = try device.takeReceiveQueue(id, mempool: pool)
    let tx = try device.takeTransmitQueue(id)
    self.rx = rx
    self.tx = tx
    self.card = card.queue(id)
  }

  mutating func run(_ packets: Int, _ gate: Gate) {
    for _ in 0..<64 { turn() }
    gate.meet()
    let start = ContinuousClock.now
    for _ in 0..<(packets / 32) { turn() }
    time = ContinuousClock.now - start
  }

  private mutating func turn() {
    card.step(32)
    forwarded += driverStep(&rx, &tx)
  }
}

/// The driver's part of a turn: what is counted.
@inline(never) private func driverStep(
  _ rx: inout IxgbeReceiveQueue, _ tx: inout IxgbeTransmitQueue
) -> Int {
  rx.forward(to: &tx, max: 32) { packet in
    packet[1] &+= 1
    return .send
  }
}

/// Where threads wait for each other, so that all run at the same time.
private final class Gate: Sendable {
  private let missing: Atomic<Int>

  init(_ threads: Int) { missing = Atomic(threads) }

  func meet() {
    missing.subtract(1, ordering: .acquiringAndReleasing)
    while missing.load(ordering: .acquiring) > 0 {}
  }
}

/// Forwards with one thread, with two, and so on, again and again: a busy machine is busy for all.
///
/// Prints a line for each number of threads: the median nanoseconds a packet takes its thread.
func measureQueues(upTo threads: Int, packets: Int, rounds: Int) throws {
  // With one round, for counting instructions, only that number of threads.
  let counts = rounds == 1 ? threads...threads : 1...threads
  var times = [[Double]](repeating: [], count: threads + 1)
  let cores = Cores.allowed.numbers
  for _ in 0..<rounds {
    for count in counts {
      let (domain, card) = (DMADomain(), StandInCard())
      var configuration = DeviceConfiguration()
      configuration.receiveQueues = threads
      configuration.transmitQueues = threads
      let device = try IxgbeDevice(card, domain: domain, configuration: configuration)
      let gate = Gate(count)
      let running = try (0..<count).map { id in
        let lane = try Lane(device, card, id, domain)
        return try WorkerThread("lane", on: Cores([cores[id % cores.count]]), owning: lane) {
          $0.run(packets, gate)
        }
      }
      for thread in running {
        let lane = try thread.join()
        precondition(lane.forwarded > packets, "the stand-in card gave too few frames")
        times[count].append(lane.time / .nanoseconds(1) / Double(packets))
      }
    }
  }
  for count in counts {
    let sorted = times[count].sorted()
    print("queues", count, sorted[sorted.count / 2])
  }
}
