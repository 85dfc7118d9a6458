import Ixy
import StandIns

/// A batch through the queues of any driver, as `ixy fwd` has them: one call of each for a batch.
@inline(never) private func batched(
  _ rx: inout any ReceiveQueue & ~Copyable, _ tx: inout any TransmitQueue & ~Copyable,
  _ batch: inout PacketBatch
) throws {
  _ = try rx.receive(into: &batch, max: .max)
  batch.forEach { $0[1] &+= 1 }
  _ = try tx.transmit(&batch)
  batch.removeAll()
}

/// Measures the batch path of a driver that is known only by its protocol.
///
/// - Parameters:
///   - meter: What counts.
///   - name: The driver's name.
///   - pci: The stand-in.
///   - connect: Tells the card where its rings are, when they are known.
///   - step: What the card does for so many frames.
/// - Throws: When the card cannot be opened.
func measure(
  _ meter: inout Meter, _ name: String, _ pci: StandInCard,
  connect: (UnsafeMutablePointer<standin>) -> Void,
  step: (UnsafeMutablePointer<standin>, UInt32) -> Void
) throws {
  let domain = DMADomain()
  let device = try openDevice(pci, domain: domain)
  let pool = try Mempool(domain: domain, buffers: 4096)
  var rx = try device.receiveQueue(0, mempool: pool)
  var tx = try device.transmitQueue(0)
  let card = UnsafeMutablePointer<standin>.allocate(capacity: 1)
  card.initialize(to: standin())
  card.pointee.bar = pci.bytes
  card.pointee.mask = 511
  connect(card)
  for _ in 0..<meter.rounds {
    for size in Meter.batches {
      var batch = PacketBatch(capacity: size)
      let what = Case(card: name, design: "batch", language: "Swift", batch: size)
      meter.measure(what, card) {
        step(card, UInt32(size))
        do { try batched(&rx, &tx, &batch) } catch { fatalError("\(error)") }
      }
    }
  }
}
