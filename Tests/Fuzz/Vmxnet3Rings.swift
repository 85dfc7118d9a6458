import Emulation
import Ixy

@testable import DriverModels

/// The device's side of a vmxnet3: rings with generations, completions, and the area that both share.
final class Vmxnet3Rings: HostileRings {
  private let model: Vmxnet3Model
  private var dma: DMATable { model.dma }
  /// What was reported last: twice would break the ring.
  private var lastReport = UInt64.max

  init(_ model: Vmxnet3Model) { self.model = model }

  var canStop: Bool { !model.refusesToBeQuiet }

  func behave() {
    model.refusesToBeQuiet = false
    model.refusesActivation = false
  }

  // MARK: - As a good device does

  func work(_ choices: Choices) {
    model.arriving += choices.frames()
    _ = model.step()
    forget()
  }

  /// What the model keeps for unit tests would only grow here.
  private func forget() {
    (model.sent, model.violations, model.commands) = ([], [], [])
  }

  // MARK: - As a bad one does

  func lie(_ dma: DMATable, _ written: [Int: UInt64], _ choices: Choices) {
    defer { forget() }
    guard model.isActive, let receiver = model.receivers.first else {
      return changeDevice(choices)
    }
    switch choices.byte() {
    case 0..<170: receive(choices)
    case 170..<220: report(choices)
    case 220..<230: spoil(receiver.ring, choices)
    case 230..<240: spoil(model.transmitters[0].ring, choices)
    case 240..<248: spoilArea(receiver.description, choices)
    case 248: if breaks(choices) { spoil(model.transmitters[0].completions, choices) }
    case 249: if breaks(choices) { spoil(receiver.completions, choices) }
    default: changeDevice(choices)
    }
  }

  /// Whether to do what breaks a ring for good: seldom, or nothing else would be tried.
  private func breaks(_ choices: Choices) -> Bool { choices.isOdd(16) }

  /// Completes the next receive descriptor, whether the driver has given it or not.
  private func receive(_ choices: Choices) {
    let place = UInt64(model.receivers[0].ring.next)
    model.receivers[0].ring.advance()
    let hash = choices.number(bytes: 1) << 32
    let length: UInt64 = choices.pick([14, 60, 1514, 1518])
    var (low, high) = (hash | 0xC000 | place, length)
    switch choices.byte() {
    case 0..<100: break
    // Any length; a part of a frame; damaged; anything but what the ring goes by.
    case 100..<150: high = choices.field()
    case 150..<180: low = hash | choices.pick([0, 0x4000, 0x8000]) | place
    case 180..<200: high |= 1 << UInt64(choices.byte() % 64)
    case 200..<252: (low, high) = (choices.field() & ~0x03FF_0FFF | place, choices.field())
    default: if breaks(choices) { low = misplaced(low, choices) }
    }
    model.complete(0, low, high)
  }

  /// Words of a completion that is out of its turn.
  private func misplaced(_ low: UInt64, _ choices: Choices) -> UInt64 {
    switch choices.byte() & 3 {
    case 0: return low ^ 1 << UInt64(choices.byte() % 64)
    case 1: return choices.field()
    case 2: return low & ~0xFFF | UInt64(choices.below(model.receivers[0].ring.size))
    default:
      // The next place is left out, or comes twice.
      if choices.isOdd(128) { model.receivers[0].ring.advance() }
      return low
    }
  }

  /// Reports some of the frames as sent that wait for it, or others.
  private func report(_ choices: Choices) {
    let (size, end) = (model.transmitters[0].ring.size, model.transmitters[0].producer % 4096)
    for _ in 0...choices.below(size) where model.transmitters[0].ring.next != end {
      model.transmitters[0].ring.advance()
    }
    var index = UInt64((model.transmitters[0].ring.next + size - 1) % size)
    if choices.isOdd(1) {
      index = choices.field()
    } else if index == lastReport {
      return
    }
    lastReport = index
    let ring = model.transmitters[0].completions
    dma.store(index | choices.field() & ~0xFFF, to: ring.cell, bytes: 8)
    let flags = choices.field() & ~(1 << 63)
    dma.store(flags | ring.generation << 63, to: ring.cell + 8, bytes: 8)
    model.transmitters[0].completions.advance()
  }

  /// Writes into a ring where nothing of the kind belongs: a word, a bit, or a copy of another place.
  private func spoil(_ ring: Vmxnet3Model.Ring, _ choices: Choices) {
    let at = ring.address + UInt64(16 * choices.below(ring.size) + 8 * choices.below(2))
    guard let old = dma.load(at, bytes: 8) else { return }
    let other = ring.address + UInt64(8 * choices.below(2 * ring.size))
    switch choices.byte() & 3 {
    case 0: dma.store(choices.field(), to: at, bytes: 8)
    case 1: dma.store(dma.load(other, bytes: 8) ?? 0, to: at, bytes: 8)
    default: dma.store(old ^ 1 << UInt64(choices.byte() % 64), to: at, bytes: 8)
    }
  }

  /// Writes into what driver and device tell each other beside the rings.
  private func spoilArea(_ description: UInt64, _ choices: Choices) {
    switch choices.byte() & 3 {
    case 0: dma.store(UInt64(choices.byte()), to: description, bytes: 1)
    case 1: dma.store(choices.field(), to: description + 88 + 64, bytes: 8)
    case 2: dma.store(choices.field(), to: description + UInt64(choices.below(248)), bytes: 8)
    default:
      dma.store(choices.field(), to: model.shared + UInt64(choices.below(700)), bytes: 4)
    }
  }

  /// What an honest device never changes while it works, or seldom.
  private func changeDevice(_ choices: Choices) {
    switch choices.below(8) {
    case 0: model.refusesToBeQuiet = choices.isOdd(64)
    case 1: model.refusesActivation = choices.isOdd(64)
    case 2: model.wantsReceiveDoorbell.toggle()
    case 3: model.completesEach.toggle()
    case 4: model.megabits = UInt32(truncatingIfNeeded: choices.field())
    case 5: model.isActive = !choices.isOdd(32)
    default: model.isPlugged.toggle()
    }
  }
}
