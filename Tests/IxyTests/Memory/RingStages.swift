import Glibc
import Synchronization

@testable import Ixy

/// Ends a loop that moves nothing any more: a test that fails, and none that hangs.
struct Patience {
  struct Over: Error {}

  private var limit: ContinuousClock.Instant?

  /// Gives other threads their turn when nothing has moved; throws where nothing has for five minutes.
  mutating func wait(moved: Int) throws(Over) {
    if moved > 0 { return limit = nil }
    let end = limit ?? .now + .seconds(300)
    limit = end
    if .now >= end { throw Over() }
    sched_yield()
  }
}

/// What all receivers of a test share.
final class RingTotals: Sendable {
  let received = Atomic(0)
}

extension Packet {
  /// Writes a number into the frame's first eight bytes.
  mutating func stamp(_ number: Int) {
    var bytes = self.bytes
    bytes.storeBytes(of: number, as: Int.self)
  }

  /// The number in the frame's first eight bytes.
  var stamp: Int { contents.unsafeLoad(as: Int.self) }

  /// Whether the buffer is with somebody, by a mark in it: its bytes 8 to 15.
  ///
  /// A buffer with two owners is marked twice, or freed twice.
  mutating func mark(_ isOwned: Bool) -> Bool {
    var bytes = self.bytes
    let before = bytes.unsafeLoad(fromByteOffset: 8, as: Int.self)
    bytes.storeBytes(of: isOwned ? 0x0DD : 0, toByteOffset: 8, as: Int.self)
    return before == (isOwned ? 0 : 0x0DD)
  }
}

/// Makes numbered packets and sends them.
struct SendingEnd: ~Copyable {
  struct TwoOwners: Error { var buffers: Int }

  let part: Mempool
  var sender: PacketSender
  let id: Int
  let count: Int
  var doubles = 0

  init(part: Mempool, sender: consuming PacketSender, id: Int, count: Int) {
    self.part = part
    self.sender = sender
    self.id = id
    self.count = count
  }

  mutating func run() throws {
    var patience = Patience()
    var batch = PacketBatch(capacity: 32)
    var made = 0
    while made < count || !batch.isEmpty {
      // A batch that was sent in part has no room at its end.
      let isEmpty = batch.isEmpty
      while isEmpty, made < count, batch.count < 32, var packet = part.packet(length: 64) {
        if !packet.mark(true) { doubles += 1 }
        packet.stamp(id << 48 | made)
        made += 1
        batch.append(packet)
      }
      try patience.wait(moved: sender.send(&batch))
    }
    if doubles > 0 { throw TwoOwners(buffers: doubles) }
  }
}

/// Receives numbered packets until all threads together have enough.
struct ReceivingEnd: ~Copyable {
  let part: Mempool
  var receiver: PacketReceiver
  /// The next number of each sender.
  var next: [Int]
  var failures: [String] = []

  init(part: Mempool, receiver: consuming PacketReceiver, senders: Int) {
    self.part = part
    self.receiver = receiver
    next = [Int](repeating: 0, count: senders)
  }

  mutating func run(until end: Int, _ total: RingTotals) throws {
    var patience = Patience()
    var batch = PacketBatch(capacity: 32)
    while total.received.load(ordering: .relaxed) < end {
      let count = receiver.receive(into: &batch)
      try patience.wait(moved: count)
      total.received.add(count, ordering: .relaxed)
      for i in 0..<batch.count { check(&batch[i]) }
      batch.removeAll()
    }
  }

  private mutating func check(_ packet: inout Packet) {
    let (sender, number) = (packet.stamp >> 48, packet.stamp & 0xFFFF_FFFF_FFFF)
    // Several receivers see a part of the numbers each, but never one out of order.
    if !next.indices.contains(sender) || number < next[sender] { fail("out of order: \(number)") }
    if next.indices.contains(sender) { next[sender] = number + 1 }
    if !packet.mark(false) { fail("a buffer had two owners") }
  }

  private mutating func fail(_ text: String) {
    if failures.count < 10 { failures.append(text) }
  }
}

/// Takes packets out of one ring, looks at them, and puts them into another.
struct MiddleEnd: ~Copyable {
  var receiver: PacketReceiver
  var sender: PacketSender
  let part: Mempool

  init(receiver: consuming PacketReceiver, sender: consuming PacketSender, part: Mempool) {
    self.receiver = receiver
    self.sender = sender
    self.part = part
  }

  mutating func run(until count: Int) throws {
    var patience = Patience()
    var batch = PacketBatch(capacity: 32)
    var left = count
    while left > 0 {
      receiver.receive(into: &batch)
      batch.forEach { $0[20] &+= 1 }
      let sent = sender.send(&batch)
      left -= sent
      try patience.wait(moved: sent)
    }
  }
}
