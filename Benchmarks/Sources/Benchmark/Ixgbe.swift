import Ixy
import StandIns

/// Registers that read as they were written, and as an 82599 that is ready.
private final class IxgbeRegisters: RegisterAccess {
  /// EEC, RDRXCTL, SECRXSTAT, RAL and CTRL_EXT's status bits: done.
  private var values: [Int: UInt64] = [0x10010: 0x200, 0x2F00: 8, 0x8D04: 1]

  func read(_ offset: Int, width: Int) -> UInt64 { offset == 0 ? 0 : values[offset] ?? 0 }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    switch offset {
    case 0x10010, 0x8: break
    case 0x2F00: values[offset] = value | 8
    default: values[offset] = value
    }
  }
}

// The forwarders, as an application writes them; never inlined, as they are not in one.

@inline(never) private func fused(
  _ rx: inout IxgbeReceiveQueue, _ tx: inout IxgbeTransmitQueue, _ batch: Int
) {
  rx.forward(to: &tx, max: batch) { packet in
    packet[1] &+= 1
    return .send
  }
}

@inline(never) private func fusedOne(_ rx: inout IxgbeReceiveQueue, _ tx: inout IxgbeTransmitQueue)
{
  rx.forwardOne(to: &tx) { packet in
    packet[1] &+= 1
    return .send
  }
}

@inline(never) private func inPlace(_ forwarder: inout IxgbeInPlaceForwarder, _ batch: Int) {
  forwarder.forward(max: batch) { frame in
    frame[1] &+= 1
    return .send
  }
}

@inline(never) private func batched(
  _ rx: inout IxgbeReceiveQueue, _ tx: inout IxgbeTransmitQueue, _ batch: inout PacketBatch
) {
  rx.receive(into: &batch)
  batch.forEach { $0[1] &+= 1 }
  tx.transmit(&batch)
  batch.removeAll()
}

@inline(never) private func single(
  _ rx: inout IxgbeReceiveQueue, _ tx: inout IxgbeTransmitQueue, _ batch: inout PacketBatch
) {
  rx.receive(into: &batch)
  while var packet = batch.popFirst() {
    packet[1] &+= 1
    // What the ring has no room for is dropped.
    if let unsent = tx.transmit(packet) { _ = consume unsent }
  }
}

/// A card with one ring each way, and what stands in for its other end.
private func open(_ domain: DMADomain, entries: Int = 512) throws -> (StandInCard, IxgbeDevice) {
  let card = StandInCard(
    id: 0x10FB_8086, size: 128 << 10, mapped: [0x1000..<0x2000, 0x6000..<0x8000],
    registers: IxgbeRegisters())
  var configuration = DeviceConfiguration()
  configuration.ringEntries = entries
  return (card, try IxgbeDevice(card, domain: domain, configuration: configuration))
}

private func standIn(for card: StandInCard) -> UnsafeMutablePointer<standin> {
  let other = UnsafeMutablePointer<standin>.allocate(capacity: 1)
  other.initialize(to: standin())
  other.pointee.bar = card.bytes
  other.pointee.mask = UInt32(card.register(0x1008) / 16 - 1)
  other.pointee.rx = card.memory.pointer(to: card.register(0x1000))
  other.pointee.tx = card.memory.pointer(to: card.register(0x6000))
  let report = card.register(0x6038)
  if report != 0 {
    other.pointee.tx_head_report = UnsafeMutableRawPointer(card.memory.pointer(to: report & ~3))
      .assumingMemoryBound(to: UInt32.self)
  }
  return other
}

/// The 82599, all designs.
func measureIxgbe(_ meter: inout Meter, _ libraries: [CForwarder]) throws {
  let domain = DMADomain()
  let (pci, device) = try open(domain)
  let pool = try Mempool(domain: domain, buffers: 4096)
  var rx = try device.takeReceiveQueue(0, mempool: pool)
  var tx = try device.takeTransmitQueue(0)
  let card = standIn(for: pci)
  let otherDomain = DMADomain()
  // Twice the entries: what is not sent yet takes up room that is to be received into.
  let (otherPCI, otherDevice) = try open(otherDomain, entries: 1024)
  var forwarder = try otherDevice.takeInPlaceForwarder(to: otherDevice)
  let otherCard = standIn(for: otherPCI)
  let designs = ["batch", "fused", "single"]
  let others = libraries.map { library in
    (library.name, library.open("ixgbe"), designs.map { ($0, library.forward("ixgbe", $0)) })
  }
  let inPlaceOthers = libraries.map { library in
    (library.name, library.open("ixgbe_in_place"), library.forward("ixgbe_in_place", "forward"))
  }
  for _ in 0..<meter.rounds {
    for size in Meter.batches {
      let frames = UInt32(size)
      func name(_ design: String, _ language: String = "Swift") -> Case {
        Case(card: "ixgbe", design: design, language: language, batch: size)
      }
      var batch = PacketBatch(capacity: size)
      meter.measure(name("batch"), card) {
        standin_ixgbe_step(card, frames)
        batched(&rx, &tx, &batch)
      }
      meter.measure(name("fused"), card) {
        standin_ixgbe_step(card, frames)
        if size == 1 { fusedOne(&rx, &tx) } else { fused(&rx, &tx, size) }
      }
      meter.measure(name("in-place"), otherCard) {
        standin_ixgbe_legacy_step(otherCard, frames)
        inPlace(&forwarder, size)
      }
      meter.measure(name("single"), card) {
        standin_ixgbe_step(card, frames)
        single(&rx, &tx, &batch)
      }
      for (language, other, designs) in others {
        for (design, forward) in designs {
          meter.measure(name(design, language), other.card) {
            standin_ixgbe_step(other.card, frames)
            forward(other.state, frames)
          }
        }
      }
      for (language, other, forward) in inPlaceOthers {
        meter.measure(name("in-place", language), other.card) {
          standin_ixgbe_legacy_step(other.card, frames)
          forward(other.state, frames)
        }
      }
    }
  }
}
