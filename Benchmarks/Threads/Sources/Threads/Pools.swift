import Ixy

/// Allocates, hands over and frees, in one thread: so every instruction is counted.
///
/// Between "own" and "other" lies what the shared store costs: the ring is in both, and it alone is not in "alone".
func measurePool(_ kind: String, packets: Int) throws {
  let (domain, card) = (DMADomain(), StandInCard())
  try card.attach(to: domain)
  var batch = PacketBatch(capacity: 32)
  if kind == "alone" {
    let pool = try Mempool(domain: domain, buffers: 4096)
    for _ in 0..<(packets / 32) {
      allocate(&batch, from: pool)
      free(&batch)
    }
    return print("pool alone", packets)
  }
  let pool = try SharedMempool(domain: domain, buffers: 4096)
  let ring = PacketRing(of: pool, capacity: 64)
  let (here, there) = try (pool.part(), pool.part())
  var sender = ring.sender()
  var receiver = ring.receiver(into: kind == "own" ? here : there)
  for _ in 0..<(packets / 32) {
    allocate(&batch, from: here)
    sender.send(&batch)
    receiver.receive(into: &batch)
    free(&batch)
  }
  print("pool", kind, packets)
}

@inline(never) private func allocate(_ batch: inout PacketBatch, from pool: Mempool) {
  for _ in 0..<32 {
    guard let packet = pool.packet(length: 60) else { fatalError("the pool is empty") }
    batch.append(packet)
  }
}

@inline(never) private func free(_ batch: inout PacketBatch) { batch.removeAll() }
