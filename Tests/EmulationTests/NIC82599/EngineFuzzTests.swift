import Testing

@testable import Emulation

/// Nonsense in descriptors and registers: whatever comes, nothing crashes and no work is without end.
@Suite struct EngineFuzzTests {
  /// Reproducible random numbers, splitmix64.
  struct Random: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var z = state
      z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
      z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
      return z ^ z >> 31
    }
  }

  /// A wire that counts only, and has one frame in store for ever.
  final class BlackHole: Wire {
    let frame = UnsafeMutableRawBufferPointer.allocate(byteCount: 20000, alignment: 64)
    var length = 60
    var sent = 0
    let kind = "hole"
    var waitsForDescriptors = false
    let isConnected = true
    let readiness: Int32? = nil
    var canSend: Bool { true }
    var counts = WireCounts()

    init() { frame.initializeMemory(as: UInt8.self, repeating: 0) }
    deinit { frame.deallocate() }
    func send(_ bytes: UnsafeRawBufferPointer) {
      #expect(bytes.count <= 16392)
      // Reads all of it: a sanitizer or a guard page would notice.
      sent &+= bytes.reduce(0) { $0 &+ Int($1) } &* 0 &+ 1
    }
    func nextFrame() -> UnsafeRawBufferPointer? {
      UnsafeRawBufferPointer(rebasing: frame[0..<length])
    }
    func takeFrame() {}
    func receiverChanged(isOn: Bool) {}
    func close() {}
  }

  private static let mostly: [UInt64] = [
    Command.legacy, Command.advanced, Command.more, Command.context,
    Command.advanced | Command.tse | Command.txsm | Command.ixsm,
    Command.advanced | Command.vle | Command.txsm, .max, 0,
  ]

  @Test(arguments: [1, 2, 3, 4])
  func `a quarter of a million hostile transmit descriptors`(seed: UInt64) throws {
    let rig = try EngineRig()
    let hole = BlackHole()
    var random = Random(state: seed)
    rig.startTransmit(0, count: 128)
    rig.startReceive(0, count: 64)
    var tail = 0
    for round in 0..<3906 {
      if round % 500 == 0 {
        let loops: UInt32 = round % 1000 == 0 ? 0 : 1 << 15
        rig.set(0x4240, 0x0801_2C0B | loops)
      }
      for _ in 0..<64 {
        var high = Self.mostly[Int(random.next() % 8)]
        let noise = random.next()
        switch random.next() % 4 {
        case 0: high |= noise & 0xFFFF
        case 1: high |= noise & 0x3FF
        case 2: high ^= noise & (noise >> 7) & (noise << 9)
        default: high = high | noise & 0xFFFF_FF00_0000_07FF
        }
        let inside = EngineRig.base + random.next() % UInt64(EngineRig.size)
        // Buffers do not lie in the ring, so that what is tested is what is written here.
        let safe = max(inside, EngineRig.base + 0x20_0000)
        let low = random.next() % 16 == 0 ? random.next() : safe
        rig[EngineRig.transmitRing(0) + UInt64(tail) * 16] =
          high & Command.context == Command.context && noise & 1 == 0 ? noise : low
        rig[EngineRig.transmitRing(0) + UInt64(tail) * 16 + 8] = high
        tail = (tail + 1) % 128
      }
      rig.transmitter.setTail(queue: 0, UInt32(tail))
      var polls = 0
      while rig.transmitter.poll(hole, limit: 64) > 0, polls < 40 { polls += 1 }
      if polls == 40 {
        // A frame in a quarter of a million segments: legal, and left alone.
        rig.startTransmit(0, count: 128)
        tail = 0
      }
    }
    #expect(hole.sent > 1000)
    #expect(rig.transmitter.rejectedFrames > 1000)
    // Still alive.
    rig.set(0x4240, 0x0801_2C0B)
    rig.startTransmit(0)
    rig.post(TestFrames.plain(60), Command.advanced)
    #expect(rig.transmit() == 1)
    #expect(rig.wire.outgoing == [TestFrames.plain(60)])
  }

  @Test(arguments: [5, 6])
  func `hostile receive rings and registers`(seed: UInt64) throws {
    let rig = try EngineRig()
    let hole = BlackHole()
    var random = Random(state: seed)
    let registers = [
      0x3000, 0x4240, 0x4268, 0x5000, 0x5080, 0x5088, 0x5090, 0xEC80, 0xEB00, 0xEB80, 0xA200,
      0xA204, 0x2300, 0x1014, 0x1028, 0x1000, 0x1004, 0x1008, 0x1010, 0x1018,
    ]
    for round in 0..<20000 {
      for _ in 0..<3 {
        let value = UInt32(truncatingIfNeeded: random.next() & (random.next() | random.next()))
        rig.set(registers[Int(random.next() % UInt64(registers.count))], value)
      }
      if round % 7 == 0 { rig.startReceive(0, count: 64, legacy: round % 2 == 0) }
      if round % 5 == 0 { rig.receiver.enable(queue: Int(random.next() % 16)) }
      if round % 11 == 0 { rig.receiver.disable(queue: Int(random.next() % 128)) }
      rig.receiver.setTail(queue: 0, UInt32(random.next() % 70))
      if round % 13 == 0 { rig.receiver.setHead(queue: 0, UInt32(random.next() % 70)) }
      if round % 3 == 0 {
        rig[EngineRig.receiveRing(0) + random.next() % 64 * 16] = random.next()
      }
      rig.registers[0x3000] = 1
      hole.length = Int(random.next() % (round % 50 == 0 ? 20000 : 1600))
      for i in 0..<64 {
        hole.frame[i] = UInt8(truncatingIfNeeded: random.next())
      }
      let types: [[UInt8]] = [[8, 0, 0x45], [8, 0, 0x4F], [0x86, 0xDD, 0x60], [0x81, 0, 0]]
      for (i, byte) in types[Int(random.next() % 4)].enumerated() { hole.frame[12 + i] = byte }
      #expect(rig.receiver.poll(hole, limit: 8) == 8)
    }
    // Still alive.
    for register in registers { rig.set(register, 0) }
    rig.set(0x3000, 1)
    rig.set(0x4240, 0x0801_2C0B)
    rig.set(0x5088, 0x8100)
    rig.setAddress(0, EngineRig.mac)
    for queue in 0..<128 { rig.receiver.disable(queue: queue) }
    rig.startReceive()
    rig.receive(TestFrames.plain(60))
    #expect(rig.received(0).length == 60)
  }

  @Test func `descriptors of all ones reach nothing`() throws {
    let rig = try EngineRig()
    rig.wire.waitsForDescriptors = false
    rig.startReceive(count: 16)
    rig.startTransmit(count: 16)
    for i in 0..<32 {
      rig[EngineRig.receiveRing(0) + UInt64(i) * 8] = .max
      rig[EngineRig.transmitRing(0) + UInt64(i) * 8] = .max
    }
    rig.transmitter.setTail(queue: 0, 15)
    while rig.transmitter.poll(rig.wire, limit: 64) > 0 {}
    #expect(rig.wire.outgoing.isEmpty)
    #expect(rig.receive(TestFrames.plain(60), TestFrames.plain(60)) == 2)
    #expect(rig.receivedHead() == 0, "a frame that cannot be stored takes no descriptor")
    #expect(rig.take(0x3FA0) == 2)
    #expect(rig.dma.violations == 2)
  }

  @Test func `a read-only buffer is not written`() throws {
    let rig = try EngineRig()
    let page = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { page.deallocate() }
    page.initializeMemory(as: UInt8.self, repeating: 0x77, count: 4096)
    try rig.dma.map(iova: 0x9000_0000, size: 4096, base: page, isWritable: false)
    rig.startReceive(count: 8)
    rig[EngineRig.receiveRing(0)] = 0x9000_0000
    #expect(rig.receive(TestFrames.plain(60)) == 1)
    #expect(rig.dma.violations == 1)
    #expect(page.load(as: UInt64.self) == 0x7777_7777_7777_7777)
  }

  @Test func `a buffer at the end of a mapping takes what fits and no more`() throws {
    let rig = try EngineRig()
    rig.startReceive(count: 8)
    let end = EngineRig.base + UInt64(EngineRig.size)
    rig[EngineRig.receiveRing(0)] = end - 60
    rig[EngineRig.receiveRing(0) + 16] = end - 59
    #expect(rig.receive(TestFrames.plain(60)) == 1)
    #expect(rig.bytes(end - 60, 60) == TestFrames.plain(60))
    #expect(rig.dma.violations == 0)
    #expect(rig.receive(TestFrames.plain(60)) == 1)
    #expect(rig.dma.violations == 1)
    #expect(rig.receivedHead() == 1)
  }

  @Test func `mappings that change between polls are followed`() throws {
    let rig = try EngineRig()
    rig.startReceive(count: 8)
    rig.receive(TestFrames.plain(60))
    let other = UnsafeMutableRawPointer.allocate(byteCount: EngineRig.size, alignment: 4096)
    defer { other.deallocate() }
    other.copyMemory(from: rig.memory, byteCount: EngineRig.size)
    rig.dma.unmapAll()
    try rig.dma.map(iova: EngineRig.base, size: EngineRig.size, base: other, isWritable: true)
    rig.receive(TestFrames.plain(64))
    #expect(!rig.received(1).isDone, "the old memory is left alone")
    let place = Int(EngineRig.receiveRing(0) - EngineRig.base) + 24
    #expect(other.load(fromByteOffset: place, as: UInt64.self) >> 32 == 64)
  }
}
