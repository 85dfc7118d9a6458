import Glibc
import Ixy
import Synchronization

/// Forwards between two ports in three stages, each on a thread of its own: receive, work, send.
///
/// Packets go from stage to stage through rings, one for each direction.
func forwardInStages(
  _ ports: [Port], _ bench: CardBench, _ configuration: DeviceConfiguration, _ load: Load,
  _ mode: InterruptMode, _ plan: ThreadPlan, _ limits: inout Limits, _ reporter: Reporter
) throws {
  let devices = ports.map(\.device)
  let waiters = try LaneWaiters(mode, devices)
  let pool = try SharedMempool(
    domain: bench.domain, buffers: 8192, bufferSize: configuration.bufferSize)
  let (control, progress) = (ThreadControl(count: limits.left), StageProgress())
  // Right: from the first card to the second.
  let (right, left) = (StageRings(pool), StageRings(pool))
  let part = try pool.part(buffers: 2 * configuration.ringEntries)
  let first = try ReceiveStage(
    devices[0], devices[1], part, right, left, try waiters.waiter(0), load, control, progress)
  let second = WorkStage(try pool.part(), right, left, load, progress)
  let third = try SendStage(
    devices[0], devices[1], try pool.part(), right, left, load, (ports[0].drops, ports[1].drops),
    progress)

  // From the last to the first; an error of one ends all.
  let sending = try WorkerThread("ixy-send", on: plan.cores[2], owning: third) { stage in
    defer {
      control.isEnding.store(true, ordering: .relaxed)
      progress.sent.store(true, ordering: .relaxed)
    }
    try stage.run()
  }
  var failure: (any Error)?
  do {
    let working = try WorkerThread("ixy-work", on: plan.cores[1], owning: second) { stage in
      defer { progress.worked.store(true, ordering: .releasing) }
      stage.run()
    }
    let receiving = try WorkerThread("ixy-receive", on: plan.cores[0], owning: first) { stage in
      defer {
        control.isEnding.store(true, ordering: .relaxed)
        progress.received.store(true, ordering: .releasing)
      }
      try stage.run()
    }
    var watch = try CardWatch(bench)
    do {
      try waitForEnd(of: control, devices, &watch, &limits, reporter)
    } catch {
      failure = error
    }
    control.isEnding.store(true, ordering: .relaxed)
    do { _ = try receiving.join() } catch { failure = failure ?? error }
    _ = try working.join()
  } catch {
    failure = failure ?? error
    // A stage that never was is over.
    control.isEnding.store(true, ordering: .relaxed)
    progress.received.store(true, ordering: .releasing)
    progress.worked.store(true, ordering: .releasing)
  }
  do { _ = try sending.join() } catch { failure = failure ?? error }
  if let failure { throw failure }
}

/// Which stages are over: the next one ends when nothing is left.
private final class StageProgress: Sendable {
  let received = Atomic(false)
  let worked = Atomic(false)
  /// Nobody sends any more: packets are dropped.
  let sent = Atomic(false)

  /// Waits where the next stage is behind: frames wait in the card meanwhile, and are lost there if at all.
  func pass(_ packets: inout PacketBatch, to sender: inout PacketSender) {
    sender.send(&packets)
    while !packets.isEmpty && !sent.load(ordering: .relaxed) {
      sched_yield()
      sender.send(&packets)
    }
    packets.removeAll()
  }
}

/// The two rings of one direction.
private struct StageRings: Sendable {
  let received: PacketRing
  let worked: PacketRing

  init(_ pool: SharedMempool) {
    received = PacketRing(of: pool, capacity: 512)
    worked = PacketRing(of: pool, capacity: 512)
  }
}

/// Receives from both cards.
private struct ReceiveStage: ~Copyable {
  private var fromA: any ReceiveQueue & ~Copyable
  private var fromB: any ReceiveQueue & ~Copyable
  private var right: PacketSender
  private var left: PacketSender
  private var waiter: QueueWaiter
  private var packets: PacketBatch
  private let control: ThreadControl
  private let progress: StageProgress

  init(
    _ a: any EthernetDevice, _ b: any EthernetDevice, _ part: Mempool, _ right: StageRings,
    _ left: StageRings, _ waiter: consuming QueueWaiter, _ load: Load, _ control: ThreadControl,
    _ progress: StageProgress
  ) throws {
    let fromA = try a.receiveQueue(0, mempool: part)
    let fromB = try b.receiveQueue(0, mempool: part)
    self.fromA = fromA
    self.fromB = fromB
    self.right = right.received.sender()
    self.left = left.received.sender()
    self.waiter = waiter
    packets = PacketBatch(capacity: load.batch)
    self.control = control
    self.progress = progress
  }

  mutating func run() throws {
    var budget = SharedBudget(control)
    let batch = packets.capacity
    while !control.isEnding.load(ordering: .relaxed) {
      var moved = 0
      for _ in 0..<64 {
        let toTheRight = try fromA.receive(into: &packets, max: budget.next(batch))
        budget.took(toTheRight)
        progress.pass(&packets, to: &right)
        let toTheLeft = try fromB.receive(into: &packets, max: budget.next(batch))
        budget.took(toTheLeft)
        progress.pass(&packets, to: &left)
        moved += toTheRight + toTheLeft
      }
      try waiter.wait(moved: moved, timeout: .milliseconds(100))
    }
  }
}

/// Works on the packets of both directions.
private struct WorkStage: ~Copyable {
  private var right: WorkPath
  private var left: WorkPath
  private let progress: StageProgress

  init(
    _ part: Mempool, _ right: StageRings, _ left: StageRings, _ load: Load,
    _ progress: StageProgress
  ) {
    self.right = WorkPath(part, right, load, progress)
    self.left = WorkPath(part, left, load, progress)
    self.progress = progress
  }

  mutating func run() {
    while true {
      // Before the rings: what came until then is found.
      let isLast = progress.received.load(ordering: .acquiring)
      let moved = right.step() + left.step()
      if moved == 0 && isLast { return }
      if moved == 0 { sched_yield() }
    }
  }
}

/// One direction of the work.
private struct WorkPath: ~Copyable {
  private var receiver: PacketReceiver
  private var sender: PacketSender
  private var packets: PacketBatch
  private let load: Load
  private let progress: StageProgress

  init(_ part: Mempool, _ rings: StageRings, _ load: Load, _ progress: StageProgress) {
    receiver = rings.received.receiver(into: part)
    sender = rings.worked.sender()
    packets = PacketBatch(capacity: load.batch)
    self.load = load
    self.progress = progress
  }

  mutating func step() -> Int {
    let count = receiver.receive(into: &packets)
    if count == 0 { return 0 }
    load.work(&packets)
    progress.pass(&packets, to: &sender)
    return count
  }
}

/// Sends to both cards.
private struct SendStage: ~Copyable {
  private var fromLeft: PacketReceiver
  private var fromRight: PacketReceiver
  private var toA: any TransmitQueue & ~Copyable
  private var toB: any TransmitQueue & ~Copyable
  private var packets: PacketBatch
  private let drops: (a: DropCounter, b: DropCounter)
  private let progress: StageProgress

  init(
    _ a: any EthernetDevice, _ b: any EthernetDevice, _ part: Mempool, _ right: StageRings,
    _ left: StageRings, _ load: Load, _ drops: (a: DropCounter, b: DropCounter),
    _ progress: StageProgress
  ) throws {
    let toA = try a.transmitQueue(0)
    let toB = try b.transmitQueue(0)
    self.toA = toA
    self.toB = toB
    fromLeft = right.worked.receiver(into: part)
    fromRight = left.worked.receiver(into: part)
    packets = PacketBatch(capacity: load.batch)
    self.drops = drops
    self.progress = progress
  }

  mutating func run() throws {
    // Its work is done already.
    let load = Load(batch: packets.capacity)
    while true {
      let isLast = progress.worked.load(ordering: .acquiring)
      var moved = fromLeft.receive(into: &packets)
      try load.send(&packets, by: &toB, drops.b)
      moved += fromRight.receive(into: &packets)
      try load.send(&packets, by: &toA, drops.a)
      if moved == 0 && isLast { break }
      // Also without packets: what the cards have sent is free again for the first stage.
      if moved == 0 { sched_yield() }
    }
    try drain { try toA.reclaim() + toB.reclaim() }
  }
}
