import Emulation
import Ixy
import StandIns

/// A wire that has the same frame again and again, and counts what is sent.
private final class BenchWire: Wire {
  let kind = "bench"
  let waitsForDescriptors = true
  let isConnected = true
  let readiness: Int32? = nil
  let canSend = true
  var counts = WireCounts()
  /// How many frames are still to come.
  var left = 0
  private let frame = UnsafeMutableRawBufferPointer.allocate(byteCount: 60, alignment: 64)

  /// A UDP frame over IPv4 to the card's address.
  init() {
    frame.initializeMemory(as: UInt8.self, repeating: 0)
    frame.copyBytes(from: [
      0x02, 0x1B, 0x21, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0, 0, 46,
    ])
    frame[23] = 17
  }

  func send(_ frame: UnsafeRawBufferPointer) { counts.received += 1 }
  func nextFrame() -> UnsafeRawBufferPointer? { left == 0 ? nil : UnsafeRawBufferPointer(frame) }
  func takeFrame() {
    left -= 1
    counts.sent += 1
  }
  func receiverChanged(isOn: Bool) {}
  func close() {}
}

/// Everything that the card has to do; what it costs is found by the function's name (measure.py).
@inline(never) private func measuredStep(_ model: NIC82599) {
  while model.step() > 0 {}
}

/// The emulated 82599: a frame of 60 bytes in one descriptor, RSS off.
func measureEmulatedCard(_ meter: inout Meter) throws {
  let wire = BenchWire()
  let model = try NIC82599(
    wire: wire, mac: MACAddress(bits: 0x02_1B_21_00_00_01), sharesQueueRegisters: false)
  let domain = DMADomain()
  let device = try IxgbeDevice(InProcessDevice(model), domain: domain)
  let pool = try Mempool(domain: domain, buffers: 4096)
  var rx = try device.takeReceiveQueue(0, mempool: pool)
  var tx = try device.takeTransmitQueue(0)
  let card = UnsafeMutablePointer<standin>.allocate(capacity: 1)
  card.initialize(to: standin())
  for _ in 0..<meter.rounds {
    for size in [32, 256] {
      var batch = PacketBatch(capacity: size)
      func name(_ design: String) -> Case {
        Case(card: "emulated", design: design, language: "Swift", batch: size)
      }
      meter.measure(name("receive"), card) {
        wire.left = size
        measuredStep(model)
        rx.receive(into: &batch)
        batch.removeAll()
        card.pointee.sent = UInt64(wire.counts.sent)
      }
      meter.measure(name("transmit"), card) {
        for _ in 0..<size {
          if let packet = pool.packet(length: 60) { batch.append(packet) }
        }
        tx.transmit(&batch)
        batch.removeAll()
        measuredStep(model)
        card.pointee.sent = UInt64(wire.counts.received)
      }
    }
  }
}
