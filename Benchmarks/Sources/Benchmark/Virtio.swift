import Ixy
import StandIns

/// The registers of a modern virtio device in one BAR: common at 0, network at 0x800, notifications at 0x1000.
private final class VirtioRegisters: RegisterAccess {
  private let offered: UInt64
  private var values: [Int: UInt64] = [:]
  private var queue = 0
  private var rings: [[Int: UInt64]] = [[:], [:]]

  /// What a network card of QEMU's offers with this kind of ring, without a control queue.
  init(packed: Bool) {
    // MAC, mergeable buffers, event index, version 1, access platform, packed rings.
    offered = 1 << 5 | 1 << 15 | 1 << 29 | 1 << 32 | 1 << 33 | (packed ? 1 << 34 : 0)
  }

  func read(_ offset: Int, width: Int) -> UInt64 {
    switch offset {
    case 0x04: offered >> (32 * values[0, default: 0]) & 0xFFFF_FFFF
    case 0x12: 2
    case 0x18: 512
    case 0x1E: UInt64(queue)
    case 0x800: 2
    default: values[offset] ?? 0
    }
  }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    switch offset {
    case 0x16: queue = Int(value)
    case 0x20...0x37: rings[queue][offset] = value
    default: values[offset] = value
    }
  }

  /// Where the driver has put the descriptors of a queue.
  func ring(_ queue: Int) -> UInt64 {
    rings[queue][0x20, default: 0] | rings[queue][0x24, default: 0] << 32
  }
}

/// A modern virtio card whose notifications are memory.
private final class VirtioStandIn: PCIDevice {
  let name = "stand-in"
  let memory = StandInMemory()
  let registers: VirtioRegisters
  private let bytes: UnsafeMutableRawPointer = standin_memory(0x2000)
  private var config = [UInt8](repeating: 0, count: 256)

  init(packed: Bool) {
    registers = VirtioRegisters(packed: packed)
    config.replaceSubrange(0..<4, with: [0xF4, 0x1A, 0x41, 0x10])
    // A list of capabilities: common, network, notification, each with its place in BAR 0.
    config[6] = 0x10
    config[0x34] = 0x40
    for (i, (kind, page)) in [(1, 0), (4, 8), (2, 0x10)].enumerated() {
      let at = 0x40 + 0x18 * i
      let next = i == 2 ? 0 : at + 0x18
      let head = [9, next, kind == 2 ? 20 : 16, kind, 0, 0, 0, 0].map(UInt8.init)
      config.replaceSubrange(
        at..<at + 20, with: head + [0, UInt8(page), 0, 0, 0, 8, 0, 0, 4, 0, 0, 0])
    }
  }

  func bar(_ index: Int) -> BAR {
    ForwardedBAR(registers, size: 0x2000, base: bytes, mapped: [0x1000..<0x2000])
  }

  func readConfig(_ offset: Int, width: Int) -> UInt32 {
    (0..<width).reversed().reduce(0) { $0 << 8 | UInt32(config[offset + $1]) }
  }

  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {
    for i in 0..<width { config[offset + i] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(i))) }
  }

  func attach(to domain: DMADomain) throws(DeviceError) { try domain.attach(memory) }

  /// The card's side of both rings.
  func card() -> UnsafeMutablePointer<standin> {
    let card = UnsafeMutablePointer<standin>.allocate(capacity: 1)
    card.initialize(to: standin())
    card.pointee.mask = 511
    card.pointee.memory = memory.pointer(to: 0)
    card.pointee.rx = memory.pointer(to: registers.ring(0))
    card.pointee.tx = memory.pointer(to: registers.ring(1))
    return card
  }
}

// The forwarders, as an application writes them; never inlined, as they are not in one.

@inline(never) private func fused(
  _ rx: inout VirtioSplitReceiveQueue, _ tx: inout VirtioSplitTransmitQueue, _ batch: Int
) throws {
  try rx.forward(to: &tx, max: batch) { packet in
    packet[1] &+= 1
    return .send
  }
}

@inline(never) private func fused(
  _ rx: inout VirtioPackedReceiveQueue, _ tx: inout VirtioPackedTransmitQueue, _ batch: Int
) throws {
  try rx.forward(to: &tx, max: batch) { packet in
    packet[1] &+= 1
    return .send
  }
}

@inline(never) private func batched(
  _ rx: inout VirtioSplitReceiveQueue, _ tx: inout VirtioSplitTransmitQueue,
  _ batch: inout PacketBatch
) throws {
  try rx.receive(into: &batch)
  batch.forEach { $0[1] &+= 1 }
  try tx.transmit(&batch)
  batch.removeAll()
}

@inline(never) private func batched(
  _ rx: inout VirtioPackedReceiveQueue, _ tx: inout VirtioPackedTransmitQueue,
  _ batch: inout PacketBatch
) throws {
  try rx.receive(into: &batch)
  batch.forEach { $0[1] &+= 1 }
  try tx.transmit(&batch)
  batch.removeAll()
}

/// virtio with split rings, one each way.
func measureVirtioSplit(_ meter: inout Meter) throws {
  let pci = VirtioStandIn(packed: false)
  let domain = DMADomain()
  let device = try VirtioDevice(pci, domain: domain)
  let pool = try Mempool(domain: domain, buffers: 4096)
  var rx = try device.takeSplitReceiveQueue(0, mempool: pool)
  var tx = try device.takeSplitTransmitQueue(0)
  let card = pci.card()
  for _ in 0..<meter.rounds {
    for size in Meter.batches {
      var batch = PacketBatch(capacity: size)
      meter.measure(
        Case(card: "virtio-split", design: "batch", language: "Swift", batch: size), card
      ) {
        standin_virtio_split_step(card, UInt32(size))
        try? batched(&rx, &tx, &batch)
      }
      meter.measure(
        Case(card: "virtio-split", design: "fused", language: "Swift", batch: size), card
      ) {
        standin_virtio_split_step(card, UInt32(size))
        try? fused(&rx, &tx, size)
      }
    }
  }
}

/// virtio with packed rings, one each way.
func measureVirtioPacked(_ meter: inout Meter) throws {
  let pci = VirtioStandIn(packed: true)
  let domain = DMADomain()
  let device = try VirtioDevice(pci, domain: domain)
  let pool = try Mempool(domain: domain, buffers: 4096)
  var rx = try device.takePackedReceiveQueue(0, mempool: pool)
  var tx = try device.takePackedTransmitQueue(0)
  let card = pci.card()
  for _ in 0..<meter.rounds {
    for size in Meter.batches {
      var batch = PacketBatch(capacity: size)
      meter.measure(
        Case(card: "virtio-packed", design: "batch", language: "Swift", batch: size), card
      ) {
        standin_virtio_packed_step(card, UInt32(size))
        try? batched(&rx, &tx, &batch)
      }
      meter.measure(
        Case(card: "virtio-packed", design: "fused", language: "Swift", batch: size), card
      ) {
        standin_virtio_packed_step(card, UInt32(size))
        try? fused(&rx, &tx, size)
      }
    }
  }
}
