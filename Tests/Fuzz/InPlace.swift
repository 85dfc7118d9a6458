import Emulation

@testable import Ixy

/// One application that forwards in place between the queues of one hostile card, again and again.
///
/// In the end all memory is free: a forwarder that loses a buffer leaks its pool, and may do so only when the card
/// would not stop.
struct InPlaceRun {
  private let card: HostileCard
  private let choices: Choices
  private let domain = DMADomain()
  private let configuration: DeviceConfiguration
  private var mayLeak = false

  init(_ card: HostileCard) {
    self.card = card
    choices = card.choices
    var configuration = DeviceConfiguration()
    configuration.ringEntries = choices.pick([64, 64, 128, 256])
    configuration.mtu = choices.pick([1500, 1500, 4000])
    self.configuration = configuration
  }

  /// Opens, uses and closes the card until its choices are used up.
  mutating func run() throws {
    let pci = InProcessDevice(card)
    try pci.attach(to: domain)
    let fence = try Fence(domain)
    try card.hide([fence.range], of: domain)
    if choices.isOdd(64) { card.misbehave() }
    var sessions = 0
    repeat {
      sessions += 1
      noteIfUnstoppable()
      if let device = try? IxgbeDevice(pci, domain: domain, configuration: configuration) {
        use(device)
        noteIfUnstoppable()
        device.stop()
      }
      card.behave()
    } while !choices.isAtEnd && sessions < 8
    fence.check()
    _ = consume fence
    let kept = domain.blocks.filter { $0() != nil }.count
    precondition(kept == 0 || mayLeak, "\(kept) blocks of memory are lost")
    domain.freeLeaks()
  }

  private mutating func noteIfUnstoppable() { mayLeak = mayLeak || !card.canStop }

  private mutating func use(_ device: IxgbeDevice) {
    noteIfUnstoppable()
    var forwarder = try? device.takeInPlaceForwarder(to: device)
    while !choices.isAtEnd {
      switch choices.byte() {
      case 0..<60: for _ in 0...choices.below(4) { card.misbehave() }
      case 60..<100: burst(&forwarder)
      case 100..<240: call(&forwarder)
      case 240..<248:
        noteIfUnstoppable()
        forwarder = nil
      case 248..<254:
        noteIfUnstoppable()
        if forwarder == nil { forwarder = try? device.takeInPlaceForwarder(to: device) }
      default: return noteIfUnstoppable()
      }
    }
    card.behave()
  }

  /// Many bad descriptors, with the forwarder's calls among them.
  private func burst(_ forwarder: inout IxgbeInPlaceForwarder?) {
    let count = 8 * choices.below(256)
    choices.inBurst {
      for _ in 0..<count {
        card.spoilRings()
        if choices.isOdd(50) { call(&forwarder) }
      }
    }
  }

  private func call(_ forwarder: inout IxgbeInPlaceForwarder?) {
    if choices.isOdd(60) { card.rings.work(choices) }
    guard let entries = forwarder?.pending() else { return }
    precondition(0..<configuration.ringEntries ~= entries, "\(entries) descriptors are not sent")
    let (limit, choices) = (choices.below(130), choices)
    let count = forwarder?.forward(max: limit) { frame in
      precondition((14...frame.capacity).contains(frame.count), "a frame of \(frame.count)")
      frame[frame.count - 1] &+= frame[0]
      if choices.isOdd(16) { frame.count = choices.below(frame.capacity + 1) }
      return choices.isOdd(64) ? .drop : .send
    }
    precondition(count.map { $0 <= limit } ?? true, "more frames than wanted")
    _ = forwarder?.isFull
  }
}

/// The one ring of an in-place forwarder, with legacy descriptors, and the word with the transmitter's head.
final class InPlaceRings: HostileRings {
  private let model: NIC82599
  /// Gives the model a frame to receive.
  private let arrive: ([UInt8]) -> Void
  private var place = 0

  init(_ model: NIC82599, arrive: @escaping ([UInt8]) -> Void) {
    (self.model, self.arrive) = (model, arrive)
  }

  func work(_ choices: Choices) {
    choices.frames().forEach(arrive)
    _ = model.step()
  }

  func lie(_ dma: DMATable, _ written: [Int: UInt64], _ choices: Choices) {
    let ring = (written[0x1000] ?? 0) | (written[0x1004] ?? 0) << 32
    let entries = Int(written[0x1008] ?? 0) / 16
    guard ring != 0, entries > 0, entries <= 4096 else { return }
    let kind = choices.byte()
    if kind < 100 {
      let head = (written[0x6038] ?? 0) & ~1 | (written[0x603C] ?? 0) << 32
      // Mostly all is sent, so that the ring does not run dry.
      let all = written[0x6018] ?? 0
      return dma.store(kind < 80 ? all : choices.field(), to: head, bytes: 4)
    }
    let place = kind & 1 != 0 ? choices.below(entries) : self.place % entries
    self.place = place + 1
    let at = ring + UInt64(16 * place)
    guard let old = dma.load(at + 8, bytes: 8) else { return }
    if kind > 240 { dma.store(choices.field(), to: at, bytes: 8) }
    dma.store(received(old, choices), to: at + 8, bytes: 8)
  }

  /// The second half of a descriptor: the length, then from bit 32 DD and EOP, from bit 40 errors.
  private func received(_ old: UInt64, _ choices: Choices) -> UInt64 {
    let whole: UInt64 = 0b11 << 32
    switch choices.byte() {
    case 0..<120: return whole | choices.pick([14, 60, 1514])
    case 120..<150: return whole | choices.field() & 0xFFFF
    case 150..<180: return 1 << 32 | choices.field() & 0xFFFF
    case 180..<210: return whole | 60 | 1 << UInt64(choices.byte() % 64)
    case 210..<240: return old ^ 1 << UInt64(choices.byte() % 64)
    default: return choices.field()
    }
  }
}
