import CFuzz
import Emulation

@testable import Ixy

/// A driver, with its queues by their own types.
struct FuzzedDriver<Receiver: ReceiveQueue & ~Copyable, Transmitter: TransmitQueue & ~Copyable> {
  let device: any EthernetDevice
  let receiver: (Mempool) throws -> Receiver
  let transmitter: () throws -> Transmitter
  /// The fused forward, where the driver has one; the last is the most frames to forward.
  let forward: (inout Receiver, inout Transmitter, Int) throws -> Void
}

/// One application that uses one hostile card, from the first reset to the last buffer.
///
/// All that it does comes from the card's choices. In the end every buffer is where it was, once; only a ring
/// that would not stop may keep its own.
struct DriverRun<Receiver: ReceiveQueue & ~Copyable, Transmitter: TransmitQueue & ~Copyable> {
  typealias Driver = FuzzedDriver<Receiver, Transmitter>
  typealias Opener = (any PCIDevice, DMADomain, DeviceConfiguration) throws -> Driver

  private let card: HostileCard
  private let domain: DMADomain
  private let configuration: DeviceConfiguration
  private let choices: Choices
  private let open: Opener
  /// The buffers that rings may have kept, because the card would not stop when they were dropped.
  private var mayBeKept = 0

  init(_ card: HostileCard, _ domain: DMADomain, open: @escaping Opener) {
    (self.card, self.domain, self.open) = (card, domain, open)
    choices = card.choices
    var configuration = DeviceConfiguration()
    configuration.ringEntries = choices.pick([64, 64, 128, 256])
    configuration.mtu = choices.pick([1500, 1500, 1500, 4000])
    self.configuration = configuration
  }

  /// Opens, uses and closes the card until its choices are used up.
  mutating func run() throws {
    let pci = InProcessDevice(card)
    try pci.attach(to: domain)
    let before = try Fence(domain)
    let extra = choices.pick([0, 1, 64, 500])
    let buffers = 2 * configuration.ringEntries + extra
    // Too small for one frame where the MTU is large: virtio can put such frames together.
    let size = extra == 1 ? Mempool.defaultBufferSize : configuration.bufferSize
    do {
      let pool = try Mempool(domain: domain, buffers: buffers, bufferSize: size)
      let after = try Fence(domain)
      try card.hide([before.range, after.range], of: domain)
      // Some runs begin with a lie.
      if choices.isOdd(64) { card.misbehave() }
      var sessions = 0
      repeat {
        sessions += 1
        // Setting up may fail half-way, with a ring that does not stop.
        noteIfUnstoppable()
        if let driver = try? open(pci, domain, configuration) {
          use(driver, pool)
          noteIfUnstoppable()
          driver.device.stop()
        }
        card.behave()
      } while !choices.isAtEnd && sessions < 8
      check(pool)
      after.check()
    }
    before.check()
    _ = consume before
    domain.freeLeaks()
  }

  private mutating func noteIfUnstoppable() {
    if !card.canStop { mayBeKept += 2 * configuration.ringEntries }
  }

  /// Calls the driver's queues in any order while the card misbehaves.
  private mutating func use(_ driver: Driver, _ pool: Mempool) {
    var receiver = takeReceiver(driver, pool)
    var transmitter = takeTransmitter(driver)
    var batch = PacketBatch(capacity: 128)
    while !choices.isAtEnd {
      switch choices.byte() {
      case 0..<60: for _ in 0...choices.below(4) { card.misbehave() }
      case 60..<100: burst(driver, pool, &receiver, &transmitter, &batch)
      case 100..<230: call(driver, pool, &receiver, &transmitter, &batch)
      case 230..<245: control(driver.device)
      case 245..<248:
        noteIfUnstoppable()
        receiver = nil
      case 248..<251:
        noteIfUnstoppable()
        transmitter = nil
      case 251..<253: if receiver == nil { receiver = takeReceiver(driver, pool) }
      case 253..<255: if transmitter == nil { transmitter = takeTransmitter(driver) }
      default: return noteIfUnstoppable()
      }
    }
    card.behave()
  }

  /// Many bad descriptors, with the driver's calls among them.
  private func burst(
    _ driver: Driver, _ pool: Mempool, _ receiver: inout Receiver?,
    _ transmitter: inout Transmitter?, _ batch: inout PacketBatch
  ) {
    let count = 8 * choices.below(256)
    choices.inBurst {
      for _ in 0..<count {
        card.spoilRings()
        if choices.isOdd(50) { call(driver, pool, &receiver, &transmitter, &batch) }
      }
    }
  }

  /// One call of the driver's queues.
  private func call(
    _ driver: Driver, _ pool: Mempool, _ receiver: inout Receiver?,
    _ transmitter: inout Transmitter?, _ batch: inout PacketBatch
  ) {
    switch choices.byte() {
    case 0..<40: card.rings.work(choices)
    case 40..<110:
      _ = try? receiver?.receive(into: &batch, max: choices.below(130))
      touch(&batch)
    case 110..<150: forward(driver, &receiver, &transmitter)
    case 150..<180: _ = try? transmitter?.transmit(&batch)
    case 180..<195:
      if let packet = pool.packet(length: 14 + choices.below(1500)) { send(packet, &transmitter) }
    case 195..<220: _ = try? transmitter?.reclaim()
    default: batch.removeAll()
    }
  }

  private mutating func takeReceiver(_ driver: Driver, _ pool: Mempool) -> Receiver? {
    noteIfUnstoppable()
    return pool.available < configuration.ringEntries ? nil : try? driver.receiver(pool)
  }

  private mutating func takeTransmitter(_ driver: Driver) -> Transmitter? {
    noteIfUnstoppable()
    return try? driver.transmitter()
  }

  private func touch(_ batch: inout PacketBatch) {
    batch.forEach { packet in
      precondition((14...packet.capacity).contains(packet.count), "a packet of \(packet.count)")
      packet[packet.count - 1] &+= packet[0]
    }
  }

  private func forward(
    _ driver: Driver, _ receiver: inout Receiver?, _ transmitter: inout Transmitter?
  ) {
    guard var from = receiver.take() else { return }
    if var to = transmitter.take() {
      try? driver.forward(&from, &to, choices.below(130))
      transmitter = consume to
    }
    receiver = consume from
  }

  private func send(_ packet: consuming Packet, _ transmitter: inout Transmitter?) {
    guard var to = transmitter.take() else { return }
    do {
      let rest = try to.transmit(packet)
      _ = consume rest
    } catch {}
    transmitter = consume to
  }

  /// The control plane, whatever it answers.
  private func control(_ device: any EthernetDevice) {
    switch choices.below(6) {
    case 0: _ = try? device.link()
    case 1: try? device.setPromiscuous(choices.isOdd(128))
    case 2: _ = device.statistics()
    case 3: _ = try? device.enableInterrupts(throttle: .microseconds(20))
    case 4:
      let address = MACAddress(bits: choices.number(bytes: 6))
      try? (device as? any FrameFilter)?.setMACAddress(address)
    default: try? (device as? any FrameFilter)?.setVLANs([choices.below(4097)])
    }
  }

  // MARK: - The account

  /// Whether every buffer is in the pool once, but for those that a ring may have kept.
  private func check(_ pool: Mempool) {
    let state = pool.state
    let free = (0..<state.pointee.top).map { UInt(bitPattern: state.pointee.stack[$0]) }
    precondition(state.pointee.top <= pool.capacity, "more buffers than there were")
    precondition(Set(free).count == free.count, "a buffer is in the pool twice")
    let missing = pool.capacity - free.count
    precondition(missing <= mayBeKept, "\(missing) buffers are lost, \(mayBeKept) may be kept")
  }
}

extension HostileCard {
  /// Takes the fences out of what the card can reach: who writes there then is the driver.
  ///
  /// A hostile card may write wherever it can.
  func hide(_ fences: [Range<UInt64>], of domain: DMADomain) throws {
    for reference in domain.blocks {
      guard let block = reference(), dma.remove(iova: block.iova, size: block.size) else {
        continue
      }
      var start = block.iova
      let end = block.iova + UInt64(block.size)
      let inside = fences.filter { block.iova <= $0.lowerBound && $0.upperBound <= end }
      for gap in inside + [end..<end] {
        if gap.lowerBound > start {
          try dma.map(
            iova: start, size: Int(gap.lowerBound - start),
            base: block.base + Int(start - block.iova), isWritable: true)
        }
        start = gap.upperBound
      }
    }
  }
}

extension DMADomain {
  /// Frees what rings have kept for ever, which a process that runs for hours cannot afford.
  ///
  /// Nothing else refers to the domain's memory any more.
  func freeLeaks() {
    for reference in blocks {
      guard var block = reference() else { continue }
      while !isKnownUniquelyReferenced(&block) { Unmanaged.passUnretained(block).release() }
    }
  }
}

/// Memory among the rings and buffers that is nobody's.
struct Fence: ~Copyable {
  private static let size = 4096
  private let memory: DMAMemory

  init(_ domain: DMADomain) throws {
    memory = try domain.allocate(Self.size)
    memory.base.initializeMemory(as: UInt8.self, repeating: 0xA5, count: Self.size)
  }

  /// Where the card would see it.
  var range: Range<UInt64> { memory.iova..<memory.iova + UInt64(Self.size) }

  borrowing func check() {
    for i in 0..<Self.size {
      precondition(memory.base.load(fromByteOffset: i, as: UInt8.self) == 0xA5, "out of its ring")
    }
  }
}
