import Glibc

extension GigabitModel {
  /// Where the registers of a ring are.
  struct Ring {
    let base: Int
    var isReceive: Bool
  }

  func receiveRing(_ queue: Int) -> Ring {
    Ring(base: kind == .igb ? 0xC000 + 0x40 * queue : 0x2800 + 0x100 * queue, isReceive: true)
  }

  func transmitRing(_ queue: Int) -> Ring {
    Ring(base: kind == .igb ? 0xE000 + 0x40 * queue : 0x3800 + 0x100 * queue, isReceive: false)
  }

  private func isOn(_ ring: Ring) -> Bool {
    if kind == .igb { return self[ring.base + 0x28] & 1 << 25 != 0 }
    // TARC: ENABLE in bit 10.
    return self[ring.base + 8] > 0 && (ring.isReceive || self[ring.base + 0x40] & 1 << 10 != 0)
  }

  private func entries(_ ring: Ring) -> Int { Int(self[ring.base + 8] & 0xFFFF0) / 16 }

  /// Where descriptor `i` is in the driver's memory.
  func address(_ ring: Ring, _ i: Int) -> UInt64 {
    (UInt64(self[ring.base + 4]) << 32 | UInt64(self[ring.base])) + UInt64(16 * i)
  }

  func descriptor(_ ring: Ring, _ i: Int) -> (low: UInt64, high: UInt64) {
    var words: [UInt64] = [0, 0]
    let isThere = words.withUnsafeMutableBytes { bytes in
      bytes.baseAddress.map { dma.read(address(ring, i), into: $0, count: 16) } ?? false
    }
    if !isThere { violations.append("a ring outside DMA memory") }
    return (words[0], words[1])
  }

  func writeDescriptor(_ ring: Ring, _ i: Int, _ low: UInt64, _ high: UInt64) {
    let words = [low, high]
    let isThere = words.withUnsafeBytes { bytes in
      bytes.baseAddress.map { dma.write(address(ring, i), from: $0, count: 16) } ?? false
    }
    if !isThere { violations.append("a ring outside DMA memory") }
  }

  /// Sends what is in the transmit rings, then receives what has arrived.
  func step() -> Int {
    var moved = 0
    let queues = kind == .igb ? 16 : 2
    if isTransmitting { for queue in 0..<queues { moved += transmit(transmitRing(queue)) } }
    while let frame = arriving.first {
      guard isReceiving, deliver(frame) || !hasRoom else { break }
      arriving.removeFirst()
      moved += 1
    }
    return moved
  }

  // MARK: - Transmit

  private func transmit(_ ring: Ring) -> Int {
    guard isOn(ring), entries(ring) > 0 else { return 0 }
    var moved = 0
    var frame: [UInt8] = []
    while self[ring.base + 0x10] != self[ring.base + 0x18] {
      let i = Int(self[ring.base + 0x10])
      let (address, command) = descriptor(ring, i)
      let kinds: UInt64 = kind == .igb ? 0x30_0000 : 0x10_0000
      if command & 0xF0_0000 != kinds || command & 1 << 29 == 0 {
        violations.append("no data descriptor: \(String(command, radix: 16))")
      }
      let length = Int(command & 0xFFFF)
      if kind == .igb, Int(command >> 46) != length { violations.append("PAYLEN is not DTALEN") }
      frame += bytes(address, length)
      if command & 1 << 24 != 0 {
        if frame.count < 60 { frame += [UInt8](repeating: 0, count: 60 - frame.count) }
        sent.append(frame)
        frame = []
        moved += 1
      }
      if command & 1 << 27 != 0 { writeDescriptor(ring, i, address, command | 1 << 32) }
      self[ring.base + 0x10] = UInt32((i + 1) % entries(ring))
    }
    return moved
  }

  private func bytes(_ address: UInt64, _ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    let isThere = bytes.withUnsafeMutableBytes { target in
      target.baseAddress.map { dma.read(address, into: $0, count: count) } ?? (count == 0)
    }
    if !isThere { violations.append("a frame outside DMA memory") }
    return bytes
  }

  // MARK: - Receive

  /// Whether the filters want a frame.
  private func accepts(_ frame: [UInt8]) -> Bool {
    let rctl = self[0x100]
    let isLong = rctl & 1 << 5 != 0
    let limit = kind == .igb && isLong ? Int(self[0x5004]) - 4 : isLong ? 16380 : 1518
    if frame.count > limit { return false }
    if UInt32(frame[12]) << 8 | UInt32(frame[13]) == self[0x38], rctl & 1 << 18 != 0 {
      let id = Int(frame[14] & 0xF) << 8 | Int(frame[15])
      if self[0x5600 + 4 * (id / 32)] & 1 << UInt32(id % 32) == 0 { return false }
    }
    if frame[0..<6].allSatisfy({ $0 == 0xFF }) { return rctl & 1 << 15 != 0 }
    if rctl & (frame[0] & 1 != 0 ? 1 << 4 : 1 << 3) != 0 { return true }
    if frame[0] & 1 != 0 {
      let hash = (Int(frame[5]) << 8 | Int(frame[4])) >> 4
      return self[0x5200 + 4 * (hash / 32)] & 1 << UInt32(hash % 32) != 0
    }
    for i in 0..<16 where self[0x5404 + 8 * i] & 1 << 31 != 0 {
      let address = UInt64(self[0x5404 + 8 * i] & 0xFFFF) << 32 | UInt64(self[0x5400 + 8 * i])
      if (0..<6).allSatisfy({ frame[$0] == UInt8(truncatingIfNeeded: address >> UInt64(8 * $0)) }) {
        return true
      }
    }
    return false
  }

  /// The queue for a frame, and its hash.
  private func spread(_ frame: [UInt8]) -> (queue: Int, hash: UInt32) {
    let mrqc = self[0x5818]
    guard mrqc & 0b111 == (kind == .igb ? 2 : 1), self[0x5000] & 1 << 13 != 0,
      frame[12] == 8, frame[13] == 0
    else { return (0, 0) }
    let isTCP = frame[23] == 6 && mrqc & 1 << 16 != 0
    let isUDP = frame[23] == 17 && kind == .igb && mrqc & 1 << 22 != 0
    let key = (0..<40).map { i in
      UInt8(truncatingIfNeeded: self[0x5C80 + i / 4 * 4] >> UInt32(8 * (i % 4)))
    }
    let hash = toeplitz(Array(frame[26..<(isTCP || isUDP ? 38 : 34)]), key: key)
    let entry = self[0x5C00 + Int(hash & 0x7F) / 4 * 4] >> (8 * (hash & 3)) & 0xFF
    return (kind == .igb ? Int(entry & 0xF) : Int(entry >> 7), hash)
  }

  private func bufferSize(_ ring: Ring) -> Int {
    if kind == .igb { return Int(self[ring.base + 0xC] & 0x7F) * 1024 }
    let flexible = Int(self[0x100] >> 27 & 0xF) * 1024
    return flexible > 0 ? flexible : 2048
  }

  /// Receives one frame; false when there is no descriptor for it.
  private func deliver(_ frame: [UInt8]) -> Bool {
    if !accepts(frame) { return true }
    let (queue, hash) = spread(frame)
    let ring = receiveRing(queue)
    if self[0x100] & 1 << 26 == 0 { violations.append("the FCS is not stripped") }
    if kind == .e1000e, self[0x5008] & 1 << 15 == 0 { violations.append("no extended descriptors") }
    if kind == .igb, self[ring.base + 0xC] >> 25 & 7 != 1 {
      violations.append("no one-buffer type")
    }
    let size = bufferSize(ring)
    let free = entries(ring) > 0 ? Int(self[ring.base + 0x18]) - Int(self[ring.base + 0x10]) : 0
    let room = isOn(ring) && size > 0 ? (free + entries(ring)) % max(1, entries(ring)) : 0
    if room * size < frame.count || room == 0 {
      if hasRoom { return false }
      self[kind == .igb ? ring.base + 0x30 : 0x4010] += 1  // RQDPC or MPC
      return true
    }
    var rest = frame[...]
    repeat {
      let part = rest.prefix(size)
      rest = rest.dropFirst(size)
      write(part, to: ring, hash: hash, isLast: rest.isEmpty)
    } while !rest.isEmpty
    received(on: queue)
    return true
  }

  private func write(_ part: ArraySlice<UInt8>, to ring: Ring, hash: UInt32, isLast: Bool) {
    let i = Int(self[ring.base + 0x10])
    let (address, zero) = descriptor(ring, i)
    if zero & 1 != 0 { violations.append("DD was not cleared") }
    let isThere = part.withUnsafeBytes { bytes in
      bytes.baseAddress.map { dma.write(address, from: $0, count: bytes.count) } ?? false
    }
    if !isThere { violations.append("a buffer outside DMA memory") }
    var low = UInt64(hash) << 32 | 1
    var high = UInt64(part.count) << 32 | (isLast ? 0b11 : 0b01)
    lie?(&low, &high)
    writeDescriptor(ring, i, low, high)
    self[ring.base + 0x10] = UInt32((i + 1) % entries(ring))
  }
}

/// The hash that spreads frames: for each set bit of the input, 32 bits of the key from there on.
func toeplitz(_ input: [UInt8], key: [UInt8]) -> UInt32 {
  var hash: UInt32 = 0
  for bit in 0..<(8 * input.count) where input[bit / 8] & 0x80 >> UInt8(bit % 8) != 0 {
    hash ^= (0..<32).reduce(UInt32(0)) { word, i in
      word << 1 | UInt32(key[(bit + i) / 8] >> UInt8(7 - (bit + i) % 8) & 1)
    }
  }
  return hash
}
