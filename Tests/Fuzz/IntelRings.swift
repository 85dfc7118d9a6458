import Emulation
import Ixy

@testable import DriverModels

/// Rings of 16-byte descriptors whose address and length are in registers: ixgbe, igb, e1000e.
final class IntelRings: HostileRings {
  private let receive: Int
  private let transmit: Int
  private let model: any DeviceModel
  /// Gives the model a frame to receive.
  private let arrive: ([UInt8]) -> Void
  /// Where the next bad descriptor goes; mostly one after the other, as a card would.
  private var places = [0, 0]

  init(
    _ model: any DeviceModel, receive: Int, transmit: Int, arrive: @escaping ([UInt8]) -> Void
  ) {
    (self.model, self.receive, self.transmit, self.arrive) = (model, receive, transmit, arrive)
  }

  func work(_ choices: Choices) {
    choices.frames().forEach(arrive)
    _ = model.step()
  }

  func lie(_ dma: DMATable, _ written: [Int: UInt64], _ choices: Choices) {
    let isReceive = choices.byte() & 3 != 0
    let base = isReceive ? receive : transmit
    let ring = (written[base] ?? 0) | (written[base + 4] ?? 0) << 32
    let entries = Int(written[base + 8] ?? 0) / 16
    guard ring != 0, entries > 0, entries <= 4096 else { return }
    let kind = choices.byte()
    let place =
      kind & 0x80 != 0 ? choices.below(entries) : places[isReceive ? 0 : 1] % entries
    places[isReceive ? 0 : 1] = place + 1
    let at = ring + UInt64(16 * place)
    guard let low = dma.load(at, bytes: 8), let high = dma.load(at + 8, bytes: 8) else { return }
    let new = isReceive ? received(low, high, kind, choices) : sent(low, high, kind, choices)
    let source = ring + UInt64(16 * choices.below(kind & 7 == 7 ? entries : 1))
    if kind & 7 == 7, let low = dma.load(source, bytes: 8),
      let high = dma.load(source + 8, bytes: 8)
    {
      // A copy of another descriptor.
      dma.store(low, to: at, bytes: 8)
      dma.store(high, to: at + 8, bytes: 8)
    } else {
      dma.store(new.0, to: at, bytes: 8)
      dma.store(new.1, to: at + 8, bytes: 8)
    }
  }

  private func received(_ low: UInt64, _ high: UInt64, _ kind: UInt8, _ choices: Choices) -> (
    UInt64, UInt64
  ) {
    switch kind & 7 {
    // Whole, of any length; without its end; with errors.
    case 0, 1: (choices.number(bytes: 1) << 32, 0b11 | choices.pick([14, 60, 1514]) << 32)
    case 2: (low, 0b11 | choices.field() << 32)
    case 3: (low, 0b01 | choices.field() << 32)
    case 4: (low, 0b11 | 60 << 32 | (1 << UInt64(choices.byte() % 64)))
    case 5: (low, high ^ 1 << UInt64(choices.byte() % 64))
    default: (choices.field(), choices.field())
    }
  }

  private func sent(_ low: UInt64, _ high: UInt64, _ kind: UInt8, _ choices: Choices) -> (
    UInt64, UInt64
  ) {
    switch kind & 7 {
    case 0...3: (low, high | 1 << 32)
    case 4: (low, high & ~(1 << 32))
    case 5: (low, high ^ 1 << UInt64(choices.byte() % 64))
    default: (choices.field(), choices.field())
    }
  }
}
