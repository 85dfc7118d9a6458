import Emulation
import Glibc
import Ixy

/// Opens two cards, forwards both ways whatever happens to them, and closes them again.
struct Session {
  let ports: [SoakPort]
  let emulation: EmulationThread
  /// The last one: nothing happens in it, and no frame is lost.
  let isLast: Bool

  /// Forwards until the time is over or a card was reset, and accounts for every frame.
  func run(
    for duration: Duration, _ random: inout Random, _ account: inout Account,
    _ events: inout Events
  ) throws {
    let domain = DMADomain()
    var configuration = DeviceConfiguration()
    configuration.ringEntries = 64 << Int.random(in: 0...6, using: &random)
    let devices = try ports.map {
      try IxgbeDevice($0.card, domain: domain, configuration: configuration)
    }
    let pool = try Mempool(domain: domain, buffers: 4 * configuration.ringEntries)
    let modes: [InterruptMode] = [.auto, .on, .auto, .on, .off]
    let mode = modes[Int.random(in: 0..<modes.count, using: &random)]
    var waiter = try QueueWaiter(mode: mode)
    for device in devices {
      let interrupts = try waiter.enableInterrupts(of: device)
      try waiter.add(interrupts?.receive[0])
    }
    var counts: [CardCounts] = []
    var refused: [UInt64] = []
    do {
      // Fused lanes wait for room in a full ring; the others drop.
      var lanes = try Lanes(devices, pool, isFused: isLast || Bool.random(using: &random))
      openGates(waits: isLast || Bool.random(using: &random))
      let end = ContinuousClock.now + duration
      var nextEvent = ContinuousClock.now
      while counts.isEmpty, ContinuousClock.now < end {
        let moved = lanes.step()
        try waiter.wait(moved: moved, timeout: .milliseconds(50))
        if mode == .off, moved == 0 { usleep(500) }
        if isLast || ContinuousClock.now < nextEvent { continue }
        nextEvent = ContinuousClock.now + .milliseconds(Int.random(in: 1...1000, using: &random))
        counts = happen(&random, &events)
      }
      if counts.isEmpty {
        account.check(revive(&lanes, devices), "a card receives nothing any more")
        if isLast || Bool.random(using: &random) {
          account.check(settle(&lanes), "frames stay in a ring")
        }
        counts = closeGates {}
      }
      refused = lanes.refused
    }
    let drivers = devices.map { $0.statistics() }
    for device in devices { device.stop() }
    account.check(pool.available == pool.capacity, "\(pool.capacity - pool.available) buffers lost")
    for (source, target) in [(0, 1), (1, 0)] {
      account.add(
        from: counts[source], drivers[source], to: counts[target], drivers[target],
        byForwarder: refused[source], ringEntries: UInt64(configuration.ringEntries))
    }
  }

  /// One thing that happens to a card, its cable or the forwarder.
  ///
  /// - Returns: After a reset, what the cards had counted before.
  private func happen(_ random: inout Random, _ events: inout Events) -> [CardCounts] {
    let port = ports[Int.random(in: 0...1, using: &random)]
    switch Int.random(in: 0..<20, using: &random) {
    case 0..<9:
      events.flaps += 1
      emulation.exclusively { port.wire.isConnected.toggle() }
    case 9..<14:
      // The forwarder is not scheduled.
      events.pauses += 1
      usleep(UInt32.random(in: 100...200_000, using: &random))
    case 14..<19:
      // The card stands still.
      events.pauses += 1
      let time = UInt32.random(in: 100...50_000, using: &random)
      emulation.exclusively { _ = usleep(time) }
    default:
      events.resets += 1
      return closeGates { port.model.reset() }
    }
    return []
  }

  private func openGates(waits: Bool) {
    emulation.exclusively {
      for port in ports {
        port.wire.waitsForDescriptors = waits
        port.wire.isConnected = true
        port.wire.isFeeding = true
        port.wire.isOpen = true
      }
    }
  }

  /// Closes both wires, takes what the cards have counted, and does `more` before anything moves again.
  private func closeGates(_ more: () -> Void) -> [CardCounts] {
    emulation.exclusively {
      for port in ports { port.wire.isOpen = false }
      defer { more() }
      return ports.map { $0.takeCounts() }
    }
  }

  /// Plugs the cables in, and waits until both cards receive again, whatever has happened to them.
  private func revive(_ lanes: inout Lanes, _ devices: [IxgbeDevice]) -> Bool {
    emulation.exclusively { for port in ports { port.wire.isConnected = true } }
    let before = devices.map { $0.receiveStatistics(0).packets }
    let deadline = ContinuousClock.now + .seconds(60)
    while ContinuousClock.now < deadline {
      if lanes.step() == 0 { usleep(100) }
      if zip(devices, before).allSatisfy({ $0.receiveStatistics(0).packets > $1 }) { return true }
    }
    return false
  }

  /// Gives the cards no more frames, and waits until those have arrived that are under way: in the last session
  /// all of them, however long the emulation's thread is kept from running.
  private func settle(_ lanes: inout Lanes) -> Bool {
    emulation.exclusively {
      for port in ports {
        port.wire.isFeeding = false
        port.wire.isConnected = true
      }
    }
    let deadline = ContinuousClock.now + .seconds(60)
    var quiet = 0
    while ContinuousClock.now < deadline {
      if quiet >= 100, !isLast || framesUnderWay == 0 { return true }
      quiet = lanes.step() + lanes.pending() > 0 ? 0 : quiet + 1
      usleep(1000)
    }
    return false
  }

  /// What the wires gave in this session and did not get back.
  private var framesUnderWay: Int {
    emulation.exclusively { ports.reduce(0) { $0 + $1.framesAhead } }
  }
}

/// What has happened so far.
struct Events {
  var sessions = 0
  var flaps = 0
  var pauses = 0
  var resets = 0
}

/// Numbers that depend on a seed alone (SplitMix64).
struct Random: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
