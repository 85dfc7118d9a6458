import Emulation
import Ixy

@testable import DriverModels

/// The device's side of virtio rings, split or packed, which takes whatever it finds in them.
final class VirtioRings: HostileRings {
  private let model: VirtioModel
  private var dma: DMATable { model.dma }
  private var isPacked: Bool { model.accepted & VirtioModel.packed != 0 }

  private let configuration: [UInt8]

  init(_ model: VirtioModel) {
    self.model = model
    configuration = model.configuration
  }

  /// What the driver made available: its identifier, its parts, and its descriptors.
  private struct Chain {
    var id: UInt64 = 0
    var parts: [(address: UInt64, length: Int, isWritable: Bool)] = []
  }

  // MARK: - Registers that the model knows

  func mayRead(bar: Int, _ offset: Int, width: Int) -> Bool {
    switch (bar, offset) {
    case (0, 0x14...): offset - 0x14 + width <= model.configuration.count
    case (4, 0x2000..<0x3000): offset - 0x2000 + width <= model.configuration.count
    default: true
    }
  }

  func takesWrite(
    _ value: UInt64, bar: Int, to offset: Int, width: Int, _ choices: Choices
  ) -> Bool {
    let widths = [
      0x00: 4, 0x08: 4, 0x0C: 4, 0x10: 2, 0x14: 1, 0x16: 2, 0x18: 2, 0x1A: 2, 0x1C: 2, 0x20: 4,
      0x24: 4, 0x28: 4, 0x2C: 4, 0x30: 4, 0x34: 4, 0x3A: 2,
    ]
    switch (bar, offset) {
    case (4, 0..<0x1000): return widths[offset] != width
    case (4, _):
      if offset >= 0x3000 { answer(Int(value), choices) }
      return true
    case (0, 0x10):
      answer(Int(value), choices)
      return true
    case (0, 0..<0x14): return [0x04: 4, 0x08: 4, 0x0E: 2, 0x12: 1][offset] != width
    case (0, 0x14...):
      return width != 1 || offset - 0x14 >= model.configuration.count || value > 255
    default: return true
    }
  }

  /// Answers commands of the control queue: right, wrong, or not at all.
  private func answer(_ index: Int, _ choices: Choices) {
    guard index >= 2, index % 2 == 0, let queue = model.queues.last else { return }
    while let chain = take(queue) {
      guard let last = chain.parts.last, last.isWritable else { return }
      switch choices.byte() {
      case 255: return
      case 250...254: dma.store(choices.field(), to: last.address, bytes: 1)
      default: dma.store(0, to: last.address, bytes: 1)
      }
      let isWrong = choices.isOdd(4)
      use(
        isWrong ? choices.field() : chain.id, length: isWrong ? choices.field() : 1, in: queue,
        places: chain.parts.count)
    }
  }

  // MARK: - As a good device does

  var canStop: Bool { model.resets && model.resetsQueues }

  func behave() {
    model.configuration = configuration
    model.resets = true
    model.resetsQueues = true
    model.takesFeatures = true
    model.generationStep = 0
  }

  func work(_ choices: Choices) {
    for _ in 0..<choices.below(8) {
      guard let queue = model.queues.first, let chain = take(queue) else { break }
      receive(chain, in: queue, size: choices.pick([14, 60, 60, 1514]), choices)
    }
    guard model.queues.count > 2 else { return }
    for _ in 0..<choices.below(8) {
      guard let chain = take(model.queues[1]) else { break }
      use(chain.id, length: 0, in: model.queues[1], places: chain.parts.count)
    }
  }

  private func receive(_ chain: Chain, in queue: ModelQueue, size: Int, _ choices: Choices) {
    let header = model.headerSize
    var rest = [UInt8](repeating: choices.byte(), count: header + size)
    for i in 0..<header { rest[i] = 0 }
    if header >= 12 { rest[10] = 1 }
    for part in chain.parts where part.isWritable && !rest.isEmpty {
      let bytes = Array(rest.prefix(part.length))
      _ = dma.write(part.address, from: bytes, count: bytes.count)
      rest.removeFirst(bytes.count)
    }
    use(chain.id, length: UInt64(header + size), in: queue, places: chain.parts.count)
  }

  private func take(_ queue: ModelQueue) -> Chain? {
    guard queue.isEnabled, (1...32768).contains(queue.size) else { return nil }
    return isPacked ? takePacked(queue) : takeSplit(queue)
  }

  private func takeSplit(_ queue: ModelQueue) -> Chain? {
    guard let end = dma.load(queue.driverArea + 2, bytes: 2), end != UInt64(queue.taken) else {
      return nil
    }
    let slot = queue.driverArea + 4 + 2 * UInt64(Int(queue.taken) % queue.size)
    guard let id = dma.load(slot, bytes: 2) else { return nil }
    queue.taken &+= 1
    var chain = Chain(id: id)
    var place = id
    while chain.parts.count < 64, place < queue.size {
      guard let flags = dma.load(queue.descriptors + 16 * place + 12, bytes: 2),
        add(queue.descriptors + 16 * place, flags, to: &chain)
      else { return nil }
      if flags & 1 == 0 { break }
      place = dma.load(queue.descriptors + 16 * place + 14, bytes: 2) ?? .max
    }
    return chain
  }

  private func takePacked(_ queue: ModelQueue) -> Chain? {
    var chain = Chain()
    while chain.parts.count < 64 {
      let at = queue.descriptors + 16 * UInt64(queue.taken)
      guard let flags = dma.load(at + 14, bytes: 2) else { return nil }
      let isAvailable =
        (flags & 0x80 != 0) == queue.takenWrap && (flags & 0x8000 != 0) != queue.takenWrap
      guard isAvailable, add(at, flags, to: &chain), let id = dma.load(at + 12, bytes: 2) else {
        return chain.parts.isEmpty ? nil : chain
      }
      chain.id = id
      queue.taken += 1
      if Int(queue.taken) >= queue.size {
        queue.taken = 0
        queue.takenWrap.toggle()
      }
      if flags & 1 == 0 { break }
    }
    return chain
  }

  private func add(_ at: UInt64, _ flags: UInt64, to chain: inout Chain) -> Bool {
    guard let address = dma.load(at, bytes: 8), let length = dma.load(at + 8, bytes: 4) else {
      return false
    }
    chain.parts.append((address, Int(min(length, 65536)), flags & 2 != 0))
    return true
  }

  /// Says that a buffer was used.
  private func use(_ id: UInt64, length: UInt64, in queue: ModelQueue, places: Int) {
    guard queue.size > 0 else { return }
    if isPacked {
      let at = queue.descriptors + 16 * UInt64(queue.used)
      dma.store(length, to: at + 8, bytes: 4)
      dma.store(id, to: at + 12, bytes: 2)
      dma.store(queue.usedWrap ? 0x8080 : 0, to: at + 14, bytes: 2)
      let next = Int(queue.used) + places
      if next >= queue.size { queue.usedWrap.toggle() }
      queue.used = UInt16(truncatingIfNeeded: next % queue.size)
    } else {
      let at = queue.deviceArea + 4 + 8 * UInt64(Int(queue.used) % queue.size)
      dma.store(id, to: at, bytes: 4)
      dma.store(length, to: at + 4, bytes: 4)
      queue.used &+= 1
      dma.store(UInt64(queue.used), to: queue.deviceArea + 2, bytes: 2)
    }
  }

  // MARK: - As a bad one does

  func lie(_ dma: DMATable, _ written: [Int: UInt64], _ choices: Choices) {
    let queue = model.queues[choices.below(model.queues.count)]
    guard queue.isEnabled, (1...32768).contains(queue.size) else { return }
    let place = UInt64(choices.below(queue.size))
    switch choices.byte() % 16 {
    case 0...3: receiveBadly(queue, choices)
    case 4: use(choices.field(), length: choices.field(), in: queue, places: choices.below(4))
    case 5: use(place, length: choices.pick([0, 12, 72, 1526]), in: queue, places: 1)
    case 6: if !isPacked { dma.store(choices.field(), to: queue.deviceArea + 2, bytes: 2) }
    case 7:
      if !isPacked {
        queue.used &+= UInt16(choices.below(70))
        dma.store(UInt64(queue.used), to: queue.deviceArea + 2, bytes: 2)
      }
    case 8: dma.store(choices.field(), to: queue.deviceArea + 4 + 8 * place, bytes: 8)
    // Where the driver has told of its own buffers, and where events are.
    case 9: flip(queue.descriptors + 16 * place + UInt64(choices.below(16)), choices)
    case 10: flip(queue.driverArea + UInt64(choices.below(8 + 2 * queue.size)), choices)
    case 11: flip(queue.deviceArea + UInt64(choices.below(8 + 8 * queue.size)), choices)
    case 12:
      dma.store(choices.field(), to: queue.descriptors + 16 * place + 8, bytes: 8)
    case 13:
      // Completed twice.
      guard let chain = take(queue) else { return }
      for _ in 0..<2 { use(chain.id, length: 72, in: queue, places: chain.parts.count) }
    case 14: changeDevice(choices)
    default: model.configuration[choices.below(model.configuration.count)] = choices.byte()
    }
  }

  private func flip(_ iova: UInt64, _ choices: Choices) {
    guard let old = dma.load(iova, bytes: 1) else { return }
    dma.store(old ^ 1 << UInt64(choices.byte() % 8), to: iova, bytes: 1)
  }

  /// A frame whose header, length or number of buffers is wrong.
  private func receiveBadly(_ queue: ModelQueue, _ choices: Choices) {
    guard let chain = take(queue) else { return }
    if let part = chain.parts.first, part.isWritable {
      for i in 0..<UInt64(min(20, part.length)) where choices.isOdd(64) {
        dma.store(choices.field(), to: part.address + i, bytes: 1)
      }
      // The number of buffers of a frame.
      if choices.isOdd(64) { dma.store(choices.field(), to: part.address + 10, bytes: 2) }
    }
    use(
      choices.isOdd(16) ? choices.field() : chain.id,
      length: choices.isOdd(64) ? choices.field() : UInt64(model.headerSize) + 60, in: queue,
      places: choices.isOdd(16) ? choices.below(5) : chain.parts.count)
  }

  /// What an honest device never changes while it works.
  private func changeDevice(_ choices: Choices) {
    switch choices.below(6) {
    case 0: model.takesFeatures.toggle()
    case 1: model.resets = !choices.isOdd(64)
    case 2: model.resetsQueues.toggle()
    case 3: model.generationStep = choices.byte()
    case 4: model.interruptStatus = choices.byte()
    default: model.deviceStatus = choices.byte()
    }
  }
}
