// Three stages on three threads: one receives, one works, one sends.
// Pipeline 0000:03:00.0 0000:03:00.1
import Glibc
import Ixy
import Synchronization

// Ctrl-C ends the stages, so that queues and cards are stopped on the way out.
let isEnding = Atomic(false)
for number in [SIGINT, SIGTERM, SIGHUP] {
  signal(number) { _ in isEnding.store(true, ordering: .relaxed) }
}

/// Takes packets from the card and hands them on.
struct Receiver: ~Copyable {
  var queue: any ReceiveQueue & ~Copyable
  var next: PacketSender
  var packets = PacketBatch(capacity: 32)

  mutating func run() throws {
    while !isEnding.load(ordering: .relaxed) {
      // What the next stage has no room for stays in the batch, and the frames behind it in the card.
      _ = try queue.receive(into: &packets, max: 32)
      next.send(&packets)
    }
  }
}

/// Does what takes time.
struct Worker: ~Copyable {
  var previous: PacketReceiver
  var next: PacketSender
  var packets = PacketBatch(capacity: 32)

  mutating func run() {
    while !isEnding.load(ordering: .relaxed) {
      // What the next stage has no room for is changed already, and first in line.
      if packets.isEmpty, previous.receive(into: &packets) > 0 {
        // From here on the packets are this thread's: dropped, they go to its own part of the pool.
        packets.forEach { $0[1] &+= 1 }
      }
      next.send(&packets)
    }
  }
}

/// Gives packets to the other card.
struct Sender: ~Copyable {
  var previous: PacketReceiver
  var queue: any TransmitQueue & ~Copyable
  var packets = PacketBatch(capacity: 32)

  mutating func run() throws {
    while !isEnding.load(ordering: .relaxed) {
      previous.receive(into: &packets)
      _ = try queue.transmit(&packets)
    }
  }
}

func run(_ first: PCIAddress, _ second: PCIAddress) throws {
  let domain = DMADomain()
  let a = try openDevice(openCard(first, domain: domain), domain: domain)
  let b = try openDevice(openCard(second, domain: domain), domain: domain)
  try a.setPromiscuous(true)
  // One pool, of which each thread has a part: buffers that pile up in one go to the others.
  let pool = try SharedMempool(domain: domain, buffers: 8192)
  let (toWork, toSend) = (PacketRing(of: pool, capacity: 512), PacketRing(of: pool, capacity: 512))

  let forReceiving = try pool.part(buffers: 1024)
  let receiver = Receiver(
    queue: try a.receiveQueue(0, mempool: forReceiving), next: toWork.sender())
  let worker = Worker(previous: toWork.receiver(into: try pool.part()), next: toSend.sender())
  let sender = Sender(
    previous: toSend.receiver(into: try pool.part()), queue: try b.transmitQueue(0))

  // Each thread takes what it works with away from here. Whoever uses `forReceiving` after this line, or gives
  // `worker` to a second thread, is refused by the compiler.
  // A stage that fails ends the others.
  let threads = (
    try WorkerThread("receive", owning: receiver) { stage in
      defer { isEnding.store(true, ordering: .relaxed) }
      try stage.run()
    },
    try WorkerThread("work", owning: worker) { stage in
      defer { isEnding.store(true, ordering: .relaxed) }
      stage.run()
    },
    try WorkerThread("send", owning: sender) { stage in
      defer { isEnding.store(true, ordering: .relaxed) }
      try stage.run()
    }
  )
  _ = try threads.0.join()
  _ = try threads.1.join()
  _ = try threads.2.join()
}

guard CommandLine.arguments.count == 3, let first = PCIAddress(CommandLine.arguments[1]),
  let second = PCIAddress(CommandLine.arguments[2])
else {
  print("Usage: Pipeline CARD CARD, as in: Pipeline 0000:03:00.0 0000:03:00.1")
  exit(64)
}
do {
  try run(first, second)
} catch {
  print(error)
  exit(1)
}
