import Foundation
import Ixy
import Synchronization

/// What the threads of a command share: when they shall end, and what they may still do.
final class ThreadControl: Sendable {
  let isEnding = Atomic(false)
  /// Frames that nobody has claimed yet, and those that were received: what is claimed may come back.
  private let left: Atomic<Int>
  private let done = Atomic(0)
  private let limit: Int?
  private var isLimited: Bool { limit != nil }

  init(count: Int?) {
    left = Atomic(count ?? 0)
    limit = count
  }

  /// Frames that may still be received; nil is no limit.
  var remaining: Int? { limit.map { $0 - done.load(ordering: .relaxed) } }

  /// Takes up to `wanted` from what is left.
  func claim(_ wanted: Int) -> Int {
    if !isLimited { return wanted }
    var now = left.load(ordering: .relaxed)
    while true {
      let part = min(now, wanted)
      let (isDone, other) = left.weakCompareExchange(
        expected: now, desired: now - part, ordering: .relaxed)
      if isDone { return part }
      now = other
    }
  }

  /// Counts what was received of what was claimed, and gives the rest back.
  func settle(claimed: Int, received: Int) {
    if !isLimited { return }
    if received > 0 { done.add(received, ordering: .relaxed) }
    if claimed > received { left.add(claimed - received, ordering: .relaxed) }
  }
}

/// One thread's hand in the budget of all.
struct SharedBudget: Budget {
  let control: ThreadControl
  private var claimed = 0

  init(_ control: ThreadControl) { self.control = control }

  mutating func next(_ batch: Int) -> Int {
    claimed = control.claim(batch)
    return claimed
  }

  mutating func took(_ count: Int) { control.settle(claimed: claimed, received: count) }
}

/// A lane, and what its thread sleeps on.
struct OwnedLane<L: Lane & ~Copyable>: ~Copyable {
  private var lane: L
  private var waiter: QueueWaiter

  init(_ lane: consuming L, _ waiter: consuming QueueWaiter) {
    self.lane = lane
    self.waiter = waiter
  }

  /// Forwards until all shall end.
  mutating func run(_ control: ThreadControl) throws {
    var budget = SharedBudget(control)
    while !control.isEnding.load(ordering: .relaxed) {
      var moved = 0
      for _ in 0..<64 { moved += try lane.step(&budget) }
      try waiter.wait(moved: moved, timeout: .milliseconds(100))
    }
    try drain { try lane.pending() }
  }
}

/// Threads for forwarding, and where they run.
struct ThreadPlan {
  /// One for each thread.
  let cores: [Cores]

  /// Cores that the user named, one a thread; otherwise one each of `available`, or all of them where they are too few.
  init(threads: Int, named: Cores?, available: Cores) {
    if let named {
      cores = named.numbers.map { Cores([$0]) }
    } else if available.numbers.count >= threads {
      cores = available.numbers.prefix(threads).map { Cores([$0]) }
    } else {
      cores = [Cores](repeating: available, count: threads)
    }
  }
}

/// Forwards between two ports with a thread for each queue pair, until a limit is reached.
func forwardOnThreads(
  _ ports: [Port], _ bench: CardBench, _ configuration: DeviceConfiguration, _ load: Load,
  _ mode: InterruptMode, _ plan: ThreadPlan, _ limits: inout Limits, _ reporter: Reporter
) throws {
  let setUp = LaneSetUp(
    domain: bench.domain, bufferSize: configuration.bufferSize, plan: plan,
    waiters: try LaneWaiters(mode, ports.map(\.device)),
    control: ThreadControl(count: limits.left))
  if let a = ports[0].device as? IxgbeDevice, let b = ports[1].device as? IxgbeDevice {
    let threads = try setUp.start { id, pool in try FusedLane(a, b, id, pool, load) }
    try setUp.supervise(threads, ports, try CardWatch(bench), &limits, reporter)
  } else {
    let (a, b, drops) = (ports[0].device, ports[1].device, (ports[0].drops, ports[1].drops))
    let threads = try setUp.start { id, pool in try BatchLane(a, b, id, pool, load, drops) }
    try setUp.supervise(threads, ports, try CardWatch(bench), &limits, reporter)
  }
}

/// The interrupts that lanes sleep on.
struct LaneWaiters {
  private let mode: InterruptMode
  private let interrupts: [DeviceInterrupts?]

  /// Sets up the interrupts of the cards: before their first queue is taken.
  init(_ mode: InterruptMode, _ devices: [any EthernetDevice]) throws {
    let waiter = try QueueWaiter(mode: mode)
    self.mode = mode
    interrupts = try devices.map { try waiter.enableInterrupts(of: $0) }
  }

  /// What the thread of queues `id` sleeps on.
  func waiter(_ id: Int) throws -> QueueWaiter {
    var waiter = try QueueWaiter(mode: mode)
    for card in interrupts { try waiter.add(card?.receive[id]) }
    return waiter
  }
}

/// Starts the threads of lanes, and looks after them.
private struct LaneSetUp {
  let domain: DMADomain
  let bufferSize: Int
  let plan: ThreadPlan
  let waiters: LaneWaiters
  let control: ThreadControl

  /// A thread for each lane, with a pool of its own.
  func start<L: Lane & ~Copyable>(_ make: @Sendable (Int, Mempool) throws -> L) throws
    -> [WorkerThread<OwnedLane<L>>]
  {
    var threads: [WorkerThread<OwnedLane<L>>] = []
    do {
      for (id, cores) in plan.cores.enumerated() {
        let pool = try Mempool(domain: domain, buffers: 4096, bufferSize: bufferSize)
        let lane = OwnedLane(try make(id, pool), try waiters.waiter(id))
        let control = control
        threads.append(
          try WorkerThread("ixy-\(id)", on: cores, owning: lane) { lane in
            // One that fails ends all.
            defer { control.isEnding.store(true, ordering: .relaxed) }
            try lane.run(control)
          })
      }
    } catch {
      control.isEnding.store(true, ordering: .relaxed)
      for thread in threads { _ = try? thread.join() }
      throw error
    }
    return threads
  }

  /// Reports until a limit is reached or a thread ends, then ends all.
  func supervise<L: Lane & ~Copyable>(
    _ threads: [WorkerThread<OwnedLane<L>>], _ ports: [Port], _ watch: consuming CardWatch,
    _ limits: inout Limits, _ reporter: Reporter
  ) throws {
    var watch = watch
    var failure: (any Error)?
    do {
      try waitForEnd(of: control, ports.map(\.device), &watch, &limits, reporter)
    } catch {
      failure = error
    }
    control.isEnding.store(true, ordering: .relaxed)
    // Lanes are dropped here, one after the other: each gives its queues back. Some cards stop with the first one,
    // so all threads must have ended.
    while threads.contains(where: { !$0.isOver }) { usleep(1000) }
    for thread in threads {
      do { _ = try thread.join() } catch { failure = failure ?? error }
    }
    if let failure { throw failure }
  }
}

/// Reports each second until a limit is reached or a thread ends.
func waitForEnd(
  of control: ThreadControl, _ devices: [any EthernetDevice], _ watch: inout CardWatch,
  _ limits: inout Limits, _ reporter: Reporter
) throws {
  var last: UInt64 = 0
  while !control.isEnding.load(ordering: .relaxed) {
    usleep(5000)
    // Read without a lock: each is a word that one thread writes.
    var received: UInt64 = 0
    for device in devices {
      for id in 0..<device.queueCounts.receive { received &+= device.receiveStatistics(id).packets }
    }
    limits.left = control.remaining
    if limits.isOver(wasBusy: received != last) { return }
    last = received
    if try reporter.tick() { watch.tick() }
  }
}
