import Ixy

extension Vmxnet3Model {
  /// A ring as the device sees it: where it stands, and in which lap.
  struct Ring {
    let address: UInt64
    let size: Int
    var next = 0
    var generation: UInt64 = 1

    init(_ address: UInt64, _ size: UInt32, _ model: Vmxnet3Model) {
      self.address = address
      self.size = Int(size)
      if address % 512 != 0 || size == 0 || size % 32 != 0 || size > 8192 {
        model.violations.append("a ring of \(size) at \(address)")
      }
    }

    var cell: UInt64 { address + UInt64(16 * next) }

    mutating func advance() {
      next += 1
      if next == size { (next, generation) = (0, generation ^ 1) }
    }
  }

  struct Transmitter {
    let vector: Int
    var ring: Ring
    var completions: Ring
    var producer = 0

    init(at description: UInt64, _ model: Vmxnet3Model) {
      ring = Ring(model.read64(description + 16), model.read32(description + 56), model)
      completions = Ring(model.read64(description + 32), model.read32(description + 64), model)
      vector = Int(model.read8(description + 72))
    }
  }

  struct Receiver {
    let description: UInt64
    let vector: Int
    var ring: Ring
    var completions: Ring
    var outOfBuffers: UInt64 = 0

    init(at description: UInt64, _ model: Vmxnet3Model) {
      self.description = description
      ring = Ring(model.read64(description + 16), model.read32(description + 56), model)
      let second = Ring(model.read64(description + 24), model.read32(description + 60), model)
      completions = Ring(model.read64(description + 32), model.read32(description + 64), model)
      vector = Int(model.read8(description + 72))
      if completions.size != ring.size + second.size { model.violations.append("completions") }
    }
  }

  /// Sends what is in the transmit rings, then receives what has arrived.
  func step() -> Int {
    guard isActive, isBusMaster else { return 0 }
    var moved = 0
    for queue in transmitters.indices { moved += transmit(queue) }
    while !arriving.isEmpty {
      deliver(arriving.removeFirst())
      moved += 1
    }
    return moved
  }

  // MARK: - Transmit

  private func transmit(_ queue: Int) -> Int {
    var moved = 0
    var frame: [UInt8] = []
    while true {
      let cell = transmitters[queue].ring.cell
      let word = read64(cell + 8)
      if word >> 14 & 1 != transmitters[queue].ring.generation { break }
      let length = Int(word & 0x3FFF)
      frame += bytes(at: read64(cell), length == 0 ? 16384 : length)
      // RSVD, DTYPE, EXT1, MSSCOF, then HLEN, OM, EXT2, TI and TCI: nothing of it is wanted.
      if word & 0xFFFF_CFFF_FFFF_8000 != 0 {
        violations.append("transmit descriptor \(String(word, radix: 16))")
      }
      let index = transmitters[queue].ring.next
      transmitters[queue].ring.advance()
      if word & 1 << 44 == 0 { continue }
      sent.append(frame)
      frame = []
      moved += 1
      if word & 1 << 45 != 0 || completesEach { complete(queue, index) }
    }
    if moved > 0, transmitters[queue].ring.next != transmitters[queue].producer {
      violations.append("the doorbell was not rung")
    }
    return moved
  }

  private func complete(_ queue: Int, _ index: Int) {
    let ring = transmitters[queue].completions
    var low = UInt64(index)
    transmitLie?(&low)
    write64(ring.cell, low)
    write64(ring.cell + 8, ring.generation << 63)
    transmitters[queue].completions.advance()
    trigger(transmitters[queue].vector)
  }

  // MARK: - Receive

  /// Whether the filters want a frame.
  private func accepts(_ frame: [UInt8]) -> Bool {
    if mode & 16 != 0 { return true }
    if frame[12] == 0x81, frame[13] == 0 {
      let id = Int(frame[14] & 0xF) << 8 | Int(frame[15])
      if id != 0, id != 4095, vlans[id / 32] & 1 << UInt32(id % 32) == 0 { return false }
    }
    let destination = Array(frame[0..<6])
    if destination.allSatisfy({ $0 == 0xFF }) { return mode & 4 != 0 }
    if destination[0] & 1 != 0 {
      return mode & 8 != 0 || (mode & 2 != 0 && groups.contains(destination))
    }
    return mode & 1 != 0 && destination == address
  }

  /// The queue for a frame, and its hash.
  private func spread(_ frame: [UInt8]) -> (queue: Int, hash: UInt32) {
    guard let rss, frame[12] == 8, frame[13] == 0 else { return (0, 0) }
    let hash = toeplitz(Array(frame[26..<(frame[23] == 6 ? 38 : 34)]), key: rss.key)
    return (Int(rss.table[Int(hash) % rss.table.count]), hash)
  }

  private func deliver(_ frame: [UInt8]) {
    if !accepts(frame) { return }
    let (queue, hash) = spread(frame)
    let (cell, ring) = (receivers[queue].ring.cell, receivers[queue].ring)
    let word = read64(cell + 8)
    if word >> 31 & 1 != ring.generation {
      receivers[queue].outOfBuffers += 1
      return
    }
    if word & 1 << 14 != 0 { violations.append("a body in ring 1") }
    let size = Int(word & 0x3FFF)
    write(Array(frame.prefix(size)), to: read64(cell))
    receivers[queue].ring.advance()
    // SOP and EOP; ERR, because a frame has one buffer at most.
    let low = UInt64(hash) << 32 | UInt64(queue) << 16 | 0xC000 | UInt64(ring.next)
    let high = UInt64(min(size, frame.count)) | (frame.count > size ? 1 << 14 : 0)
    complete(queue, low, high)
  }

  /// Writes a completion, and with it what the driver is to believe.
  func complete(_ queue: Int, _ low: UInt64, _ high: UInt64) {
    let ring = receivers[queue].completions
    var (low, high) = (low, high | 3 << 56)
    receiveLie?(&low, &high)
    write64(ring.cell, low)
    write64(ring.cell + 8, high & ~(1 << 63) | ring.generation << 63)
    receivers[queue].completions.advance()
    trigger(receivers[queue].vector)
  }
}
