import Glibc
import Ixy
import Synchronization

/// Hands packets from thread to thread; every one is counted, in order, and no buffer has two owners.
func soakRing(isShared: Bool, packets: Int) throws {
  let (domain, card) = (DMADomain(), StandInCard())
  try card.attach(to: domain)
  let buffers = 8192
  let pool = try SharedMempool(domain: domain, buffers: buffers)
  let threads = isShared ? 2 : 1
  let side: PacketRing.Threads = isShared ? .many : .one
  let ring = PacketRing(of: pool, capacity: 1024, senders: side, receivers: side)
  let (received, share) = (Counter(), packets / threads)
  let start = ContinuousClock.now
  var sending: [WorkerThread<Source>] = []
  var receiving: [WorkerThread<Drain>] = []
  for id in 0..<threads {
    let source = Source(part: try pool.part(), sender: ring.sender(), id: id)
    sending.append(try WorkerThread("send", owning: source) { $0.run(share) })
    let part = try pool.part()
    let drain = Drain(receiver: ring.receiver(into: part), part: part, senders: threads)
    receiving.append(
      try WorkerThread("receive", owning: drain) { $0.run(until: share * threads, received) })
  }
  for thread in sending { _ = try thread.join() }
  var wrong = 0
  for thread in receiving { wrong += try thread.join().wrong }
  let time = ContinuousClock.now - start
  let count = received.number.load(ordering: .relaxed)
  // Every buffer is home, and each once: all of them can be had, and marked.
  let all = try pool.part(buffers: buffers)
  var batch = PacketBatch(capacity: buffers)
  while batch.count < buffers, var packet = all.packet(length: 64) {
    if !packet.mark(true) { wrong += 1 }
    batch.append(packet)
  }
  let rest = all.available
  print(
    "ring \(isShared ? "many" : "one"): \(count) of \(share * threads) packets, "
      + "\(batch.count) of \(buffers) buffers home, \(wrong) wrong, "
      + "\(time / .nanoseconds(1) / Double(count)) ns each")
  if count != share * threads || batch.count != buffers || wrong > 0 || rest > 0 { exit(1) }
}

private final class Counter: Sendable { let number = Atomic(0) }

extension Packet {
  /// Marks the buffer as somebody's, or nobody's; false when it was so before.
  fileprivate mutating func mark(_ isOwned: Bool) -> Bool {
    var bytes = self.bytes
    let before = bytes.unsafeLoad(fromByteOffset: 8, as: Int.self)
    bytes.storeBytes(of: isOwned ? 0x0DD : 0, toByteOffset: 8, as: Int.self)
    return before == (isOwned ? 0 : 0x0DD)
  }
}

/// Makes numbered packets.
private struct Source: ~Copyable {
  let part: Mempool
  var sender: PacketSender
  let id: Int

  init(part: Mempool, sender: consuming PacketSender, id: Int) {
    (self.part, self.id) = (part, id)
    self.sender = sender
  }

  mutating func run(_ count: Int) {
    var batch = PacketBatch(capacity: 32)
    var made = 0
    while made < count || !batch.isEmpty {
      // A batch that was sent in part has no room at its end.
      let isEmpty = batch.isEmpty
      while isEmpty, made < count, batch.count < 32, var packet = part.packet(length: 64) {
        precondition(packet.mark(true), "a buffer had two owners")
        var bytes = packet.bytes
        bytes.storeBytes(of: id << 48 | made, as: Int.self)
        made += 1
        batch.append(packet)
      }
      if sender.send(&batch) == 0 { sched_yield() }
    }
  }
}

/// Looks at each packet, and frees it.
private struct Drain: ~Copyable {
  var receiver: PacketReceiver
  let part: Mempool
  var next: [Int]
  var wrong = 0

  init(receiver: consuming PacketReceiver, part: Mempool, senders: Int) {
    self.receiver = receiver
    self.part = part
    next = [Int](repeating: 0, count: senders)
  }

  mutating func run(until end: Int, _ received: Counter) {
    var batch = PacketBatch(capacity: 32)
    while received.number.load(ordering: .relaxed) < end {
      let count = receiver.receive(into: &batch)
      if count == 0 {
        sched_yield()
        continue
      }
      received.number.add(count, ordering: .relaxed)
      for i in 0..<batch.count {
        let stamp = batch[i].contents.unsafeLoad(as: Int.self)
        let (sender, number) = (stamp >> 48, stamp & 0xFFFF_FFFF_FFFF)
        if !batch[i].mark(false) { wrong += 1 }
        // With several receivers each sees a part of the numbers, but never one out of order.
        if !next.indices.contains(sender) || number < next[sender] {
          wrong += 1
        } else {
          next[sender] = number + 1
        }
      }
      batch.removeAll()
    }
  }
}
