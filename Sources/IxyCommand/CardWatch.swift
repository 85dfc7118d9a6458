import Ixy

/// Polls or sleeps between looks at the queues of some cards, and tells what happens to the cards meanwhile.
struct CardWatch: ~Copyable {
  private var waiter: QueueWaiter
  private var cards: [WatchedCard]
  private var sleeps = 0

  /// Sets up the interrupts of the cards: before their first queue is taken.
  init(_ mode: InterruptMode, _ bench: CardBench) throws {
    var waiter = try QueueWaiter(mode: mode)
    var cards: [WatchedCard] = []
    for (device, bus) in zip(bench.devices, bench.buses) {
      let interrupts = try waiter.enableInterrupts(of: device)
      try waiter.add(interrupts?.receive[0])
      if let link = interrupts?.link { try waiter.add(link) }
      cards.append(WatchedCard(device: device, bus: bus, interrupt: interrupts?.link))
    }
    self.waiter = waiter
    self.cards = cards
  }

  /// Only looks: others serve the queues, and sleep.
  init(_ bench: CardBench) throws {
    waiter = try QueueWaiter(mode: .off)
    cards = zip(bench.devices, bench.buses).map { device, bus in
      WatchedCard(device: device, bus: bus, interrupt: nil)
    }
  }

  /// Called after a look at all queues that found `moved` frames; sleeps when it is time.
  mutating func rest(moved: Int) throws {
    // A tenth of a second: so long may a signal or the end of a duration wait.
    try waiter.wait(moved: moved, timeout: .milliseconds(100))
    if waiter.sleeps == sleeps { return }
    sleeps = waiter.sleeps
    for i in cards.indices where cards[i].interrupt?.takeSignal() == true { cards[i].lookAtLink() }
  }

  /// Called each second: a thread that never sleeps hears of links here.
  mutating func tick() {
    for i in cards.indices {
      cards[i].lookAtLink()
      cards[i].lookAtFaults()
    }
  }
}

/// A card whose link and faults are looked at.
private struct WatchedCard {
  let device: any EthernetDevice
  let bus: any PCIDevice
  let interrupt: Interrupt?
  private var link: Link?
  private var faults: PCIFaults = []

  init(device: any EthernetDevice, bus: any PCIDevice, interrupt: Interrupt?) {
    self.device = device
    self.bus = bus
    self.interrupt = interrupt
  }

  /// Tells when the link is not as it was.
  mutating func lookAtLink() {
    // A card that is gone says so where frames are moved.
    guard let now = try? device.link() else { return }
    if let link, link != now {
      tell(
        "\(device.name): " + (now.isUp ? "link up, \(now.megabitsPerSecond) Mbit/s" : "link down"))
    }
    link = now
  }

  /// Tells when the card's accesses to memory fail; where that cannot be cleared, once.
  mutating func lookAtFaults() {
    guard let now = try? bus.takeFaults() else { return }
    if !now.subtracting(faults).isEmpty { tell("\(device.name): \(now).") }
    faults = now
  }
}
