import Foundation
import Testing

@testable import Ixy

@Suite struct PacketRingTests {
  typealias Threads = PacketRing.Threads
  static let kinds: [(Threads, Threads)] = [
    (.one, .one), (.many, .one), (.one, .many), (.many, .many),
  ]

  @Test(arguments: kinds) func `packets come out as they went in`(
    senders: Threads, receivers: Threads
  ) throws {
    let bench = try RingBench(capacity: 64, senders, receivers)
    let (from, to) = try (bench.pool.part(buffers: 128), bench.pool.part())
    var sender = bench.ring.sender()
    var receiver = bench.ring.receiver(into: to)
    var batch = PacketBatch(capacity: 64)
    var (sent, received) = (0, 0)
    // Sizes that do not divide the capacity: every place of the ring is a first one.
    for round in 0..<500 {
      for _ in 0..<(round % 37) {
        var packet = try from.fresh(60 + sent % 100)
        packet.stamp(sent)
        batch.append(packet)
        sent += 1
      }
      #expect(sender.send(&batch) == round % 37)
      while receiver.receive(into: &batch, max: 7) > 0 {}
      batch.forEach { packet in
        #expect(packet.stamp == received && packet.count == 60 + received % 100)
        received += 1
      }
      batch.removeAll()
    }
    #expect(received == sent && bench.ring.count == 0)
  }

  @Test(arguments: kinds) func `a full ring leaves the rest in the batch`(
    senders: Threads, receivers: Threads
  ) throws {
    let bench = try RingBench(capacity: 16, senders, receivers)
    let part = try bench.pool.part(buffers: 64)
    var sender = bench.ring.sender()
    var receiver = bench.ring.receiver(into: part)
    var batch = PacketBatch(capacity: 32)
    for i in 0..<20 {
      var packet = try part.fresh(60)
      packet.stamp(i)
      batch.append(packet)
    }
    var counts = [sender.send(&batch), sender.send(&batch), batch.count]
    #expect(counts == [16, 0, 4])
    var out = PacketBatch(capacity: 32)
    counts = [receiver.receive(into: &out, max: 3), sender.send(&batch), batch.count]
    #expect(counts == [3, 3, 1])
    counts = [receiver.receive(into: &out), sender.send(&batch), receiver.receive(into: &out)]
    #expect(counts == [16, 1, 1])
    #expect((0..<20).allSatisfy { out[$0].stamp == $0 })
    counts = [receiver.receive(into: &out), receiver.receive(into: &out, max: -1)]
    #expect(counts == [0, 0])
  }

  @Test func `a packet belongs to the part that received it`() throws {
    let bench = try RingBench(capacity: 64)
    let (from, to) = try (bench.pool.part(buffers: 64), bench.pool.part())
    var sender = bench.ring.sender()
    var receiver = bench.ring.receiver(into: to)
    var batch = PacketBatch(capacity: 32)
    for _ in 0..<32 { batch.append(try from.fresh(60)) }
    let before = from.available
    sender.send(&batch)
    receiver.receive(into: &batch)
    batch.removeAll()
    #expect(from.available == before && to.available == 32)
  }

  @Test func `a receiver that only frees passes buffers on`() throws {
    let bench = try RingBench(buffers: 2048, capacity: 64)
    let (from, to) = try (bench.pool.part(), bench.pool.part())
    var sender = bench.ring.sender()
    var receiver = bench.ring.receiver(into: to)
    var batch = PacketBatch(capacity: 32)
    // Ten times as many as there are: they go round.
    for _ in 0..<640 {
      for _ in 0..<32 { batch.append(try from.fresh(60)) }
      sender.send(&batch)
      receiver.receive(into: &batch)
      batch.removeAll()
    }
    #expect(to.available <= MempoolPart.most + 32)
  }

  @Test(arguments: kinds) func `a ring that is dropped gives its packets back`(
    senders: Threads, receivers: Threads
  ) throws {
    let (domain, _) = try testDomain()
    let pool = try SharedMempool(domain: domain, buffers: 100)
    do {
      let ring = PacketRing(of: pool, capacity: 64, senders: senders, receivers: receivers)
      let part = try pool.part(buffers: 60)
      var sender = ring.sender()
      var batch = PacketBatch(capacity: 60)
      while batch.count < 60, let packet = part.packet(length: 60) { batch.append(packet) }
      #expect(sender.send(&batch) == 60)
    }
    let part = try pool.part(buffers: 100)
    #expect(pool.distinctBuffers(part) == 100)
  }

  @Test func `the one end can be taken again`() throws {
    let bench = try RingBench(capacity: 16)
    let part = try bench.pool.part(buffers: 64)
    for i in 0..<40 {
      var sender = bench.ring.sender()
      var receiver = bench.ring.receiver(into: part)
      var batch = PacketBatch(capacity: 4)
      var packet = try part.fresh(60)
      packet.stamp(i)
      batch.append(packet)
      sender.send(&batch)
      #expect(receiver.receive(into: &batch) == 1 && batch[0].stamp == i)
    }
  }

  // MARK: - Threads

  /// How many packets go through; a soak says more.
  static let packets =
    ProcessInfo.processInfo.environment["IXY_RING_PACKETS"].flatMap { Int($0) } ?? 200_000

  @Test(arguments: [(1, 1), (2, 1), (1, 2), (2, 2)])
  func `between threads every packet arrives once and every buffer comes home`(
    senders: Int, receivers: Int
  ) throws {
    let bench = try RingBench(
      buffers: 4096, capacity: 256, senders == 1 ? .one : .many, receivers == 1 ? .one : .many)
    let total = RingTotals()
    let share = Self.packets / senders
    var sending: [WorkerThread<SendingEnd>] = []
    var receiving: [WorkerThread<ReceivingEnd>] = []
    for id in 0..<senders {
      let end = SendingEnd(
        part: try bench.pool.part(), sender: bench.ring.sender(), id: id, count: share)
      sending.append(try WorkerThread("send", owning: end) { try $0.run() })
    }
    for _ in 0..<receivers {
      let part = try bench.pool.part()
      let end = ReceivingEnd(
        part: part, receiver: bench.ring.receiver(into: part), senders: senders)
      receiving.append(
        try WorkerThread("receive", owning: end) { try $0.run(until: share * senders, total) })
    }
    for thread in sending { _ = try thread.join() }
    var failures: [String] = []
    for thread in receiving { failures += try thread.join().failures }
    #expect(failures == [])
    #expect(total.received.load(ordering: .relaxed) == share * senders)
    // Both threads' parts are gone: every buffer is home, and each once.
    let all = try bench.pool.part(buffers: 4096)
    #expect(bench.pool.distinctBuffers(all) == 4096)
  }

  @Test func `three stages on three threads pass every packet in order`() throws {
    let (domain, _) = try testDomain()
    let pool = try SharedMempool(domain: domain, buffers: 4096)
    let (first, second) = (PacketRing(of: pool, capacity: 256), PacketRing(of: pool, capacity: 256))
    let total = RingTotals()
    let count = Self.packets / 2
    // Parts end with this scope.
    do {
      let source = SendingEnd(part: try pool.part(), sender: first.sender(), id: 0, count: count)
      let part = try pool.part()
      let middle = MiddleEnd(
        receiver: first.receiver(into: part), sender: second.sender(), part: part)
      let last = try pool.part()
      let sink = ReceivingEnd(part: last, receiver: second.receiver(into: last), senders: 1)
      let threads = (
        try WorkerThread("first", owning: source) { try $0.run() },
        try WorkerThread("second", owning: middle) { try $0.run(until: count) },
        try WorkerThread("third", owning: sink) { try $0.run(until: count, total) }
      )
      _ = try threads.0.join()
      _ = try threads.1.join()
      #expect(try threads.2.join().failures == [])
    }
    let all = try pool.part(buffers: 4096)
    #expect(pool.distinctBuffers(all) == 4096)
  }
}

/// A pool and a ring for its packets.
struct RingBench {
  let pool: SharedMempool
  let ring: PacketRing

  init(
    buffers: Int = 1024, capacity: Int, _ senders: PacketRing.Threads = .one,
    _ receivers: PacketRing.Threads = .one
  ) throws {
    let (domain, _) = try testDomain()
    pool = try SharedMempool(domain: domain, buffers: buffers)
    ring = PacketRing(of: pool, capacity: capacity, senders: senders, receivers: receivers)
  }
}
