// The smallest forwarder: two cards, one queue each way, every frame from one goes out at the other.
// Forward 0000:03:00.0 0000:03:00.1
// As root, with huge pages (Scripts/setup-hugepages), and each card off the kernel: ixy bind --release CARD
import Glibc
import Ixy
import Synchronization

// Ctrl-C ends the loop, so that queues and cards are stopped on the way out.
let isEnding = Atomic(false)
for number in [SIGINT, SIGTERM, SIGHUP] {
  signal(number) { _ in isEnding.store(true, ordering: .relaxed) }
}

/// Opens a card and lets it receive everything.
func open(_ address: String, _ domain: DMADomain) throws -> IxgbeDevice {
  let card = try IxgbeDevice(SysfsDevice(address), domain: domain)
  card.setPromiscuous(true)
  return card
}

func run(_ first: String, _ second: String) throws {
  // Both cards see the same memory: a packet received by one is sent by the other as it is.
  let domain = DMADomain()
  let a = try open(first, domain)
  let b = try open(second, domain)
  let pool = try Mempool(domain: domain, buffers: 4096)
  var fromA = try a.takeReceiveQueue(0, mempool: pool)
  var fromB = try b.takeReceiveQueue(0, mempool: pool)
  var toA = try a.takeTransmitQueue(0)
  var toB = try b.takeTransmitQueue(0)
  while !isEnding.load(ordering: .relaxed) {
    forward(from: &fromA, to: &toB)
    forward(from: &fromB, to: &toA)
  }
}

/// Sends what was received, changed; frames that the ring has no room for wait in the other one.
///
/// Never inlined, so that its machine code can be found and looked at (Scripts/check-hotpath does).
@inline(never)
func forward(from receiver: inout IxgbeReceiveQueue, to transmitter: inout IxgbeTransmitQueue) {
  receiver.forward(to: &transmitter, max: 32) { packet in
    packet[1] &+= 1
    return .send
  }
}

guard CommandLine.arguments.count == 3 else {
  print("Usage: Forward CARD CARD, as in: Forward 0000:03:00.0 0000:03:00.1")
  exit(64)
}
do {
  try run(CommandLine.arguments[1], CommandLine.arguments[2])
} catch {
  print(error)
  exit(1)
}
