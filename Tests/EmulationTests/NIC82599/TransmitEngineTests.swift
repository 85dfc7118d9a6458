import Testing

@testable import Emulation

@Suite struct TransmitEngineTests {
  @Test(arguments: [Command.legacy, Command.advanced])
  func `a frame goes out and its descriptor is done`(command: UInt64) throws {
    let rig = try EngineRig()
    rig.startTransmit()
    let frame = TestFrames.plain(100)
    let index = rig.post(frame, command | Command.rs)
    #expect(rig.transmit() == 1)
    #expect(rig.wire.outgoing == [frame])
    #expect(rig.isDone(index))
    #expect(rig.transmitHead() == 1)
  }

  @Test func `only descriptors with RS are written back`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    for i in 0..<8 {
      rig.post(TestFrames.plain(60), Command.advanced | (i % 4 == 3 ? Command.rs : 0))
    }
    rig.transmit()
    #expect((0..<8).map { rig.isDone($0) } == (0..<8).map { $0 % 4 == 3 })
    #expect(rig.transmitHead() == 8)
  }

  @Test func `the ring wraps and every frame goes out in order`() throws {
    let rig = try EngineRig()
    rig.startTransmit(count: 16)
    var sent: [[UInt8]] = []
    for i in 0..<500 {
      for j in 0..<(i % 15 + 1) {
        let frame = TestFrames.plain(60 + (i * 31 + j) % 1400, seed: UInt8(truncatingIfNeeded: i))
        rig.post(frame, (i + j) % 2 == 0 ? Command.advanced : Command.legacy)
        sent.append(frame)
      }
      #expect(rig.transmit() == i % 15 + 1)
      #expect(rig.transmitHead() == rig.transmitTails[0])
    }
    #expect(rig.wire.outgoing == sent)
  }

  @Test(arguments: [Command.legacy, Command.advanced])
  func `a frame may come from several descriptors`(command: UInt64) throws {
    let rig = try EngineRig()
    rig.startTransmit()
    let frame = TestFrames.plain(1000)
    rig.post([UInt8](frame[0..<14]), command & ~(1 << 24))
    rig.post([UInt8](frame[14..<15]), command & ~(1 << 24))
    rig.post([], command & ~(1 << 24))
    rig.post([UInt8](frame[15...]), command | Command.rs)
    #expect(rig.transmit() == 1)
    #expect(rig.wire.outgoing == [frame])
    #expect((0..<4).map { rig.isDone($0) } == [false, false, false, true])
  }

  @Test func `a frame whose end is not in the ring waits`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    let frame = TestFrames.plain(200)
    rig.post([UInt8](frame[0..<100]), Command.more)
    #expect(rig.transmit() == 0)
    #expect(rig.transmit() == 0)
    #expect(rig.transmitHead() == 0)
    rig.post([UInt8](frame[100...]), Command.advanced)
    #expect(rig.transmit() == 1)
    #expect(rig.wire.outgoing == [frame])
  }

  @Test func `a frame waits until the wire takes it`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.wire.room = 2
    for i in UInt8(0)..<5 { rig.post(TestFrames.plain(60, seed: i), Command.advanced | Command.rs) }
    #expect(rig.transmit() == 2)
    #expect(rig.transmit() == 0)
    #expect(rig.transmitHead() == 2)
    #expect(!rig.isDone(2))
    rig.wire.room = 10
    #expect(rig.transmit() == 3)
    #expect(rig.wire.outgoing.last == TestFrames.plain(60, seed: 4))
  }

  @Test func `a descriptor of length 0 is retired and nothing is sent`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.postRaw(0, Command.legacy | Command.rs)
    rig.post(TestFrames.plain(60), Command.legacy)
    #expect(rig.transmit() == 2)
    #expect(rig.isDone(0))
    #expect(rig.wire.outgoing.count == 1)
    #expect(rig.transmitHead() == 2)
    #expect(rig.dma.violations == 0)
    #expect(rig.transmitter.rejectedFrames == 0)
  }

  @Test func `head write-back takes the place of DD`() throws {
    let rig = try EngineRig()
    let place = EngineRig.base + 0x3F_0000
    rig[place] = .max
    rig.startTransmit(count: 16, headWriteBack: place)
    for _ in 0..<3 { rig.post(TestFrames.plain(60), Command.legacy) }
    rig.transmit()
    #expect(rig[place] == .max, "no RS, no write-back")
    rig.post(TestFrames.plain(60), Command.legacy | Command.rs)
    rig.transmit()
    #expect(rig[place] == 0xFFFF_FFFF_0000_0004, "32 bits")
    #expect(!rig.isDone(3))
    for _ in 0..<12 { rig.post(TestFrames.plain(60), Command.legacy | Command.rs) }
    rig.transmit()
    #expect(rig[place] & 0xFFFF_FFFF == 0, "the head wraps")
  }

  @Test(arguments: [Command.legacy, Command.advanced])
  func `short frames are padded when TXPADEN is set`(command: UInt64) throws {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.post(TestFrames.plain(42), command)
    rig.transmit()
    #expect(rig.wire.outgoing == [TestFrames.plain(42) + [UInt8](repeating: 0, count: 18)])
    rig.set(0x4240, 0x0801_2C0B & ~(1 << 10))
    rig.post(TestFrames.plain(42), command)
    rig.transmit()
    #expect(rig.wire.outgoing.last == TestFrames.plain(42))
  }

  @Test func `less than an Ethernet header is no frame`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.post(TestFrames.plain(14).dropLast(), Command.advanced | Command.rs)
    rig.transmit()
    #expect(rig.wire.outgoing.isEmpty)
    #expect(rig.isDone(0))
    #expect(rig.transmitter.rejectedFrames == 1)
  }

  @Test func `without IFCS the frame brings its own FCS`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    let frame = TestFrames.plain(80)
    let raw = Command.advanced & ~(1 << 25)
    rig.post(frame + TestFrames.little(TestFrames.crc(frame)), raw)
    rig.post(frame + [1, 2, 3, 4], raw)
    rig.transmit()
    #expect(rig.wire.outgoing == [frame])
    #expect(rig.transmitter.rejectedFrames == 1)
  }

  @Test func `nothing is sent before DMATXCTL.TE`() throws {
    let rig = try EngineRig()
    rig.set(0x4A80, 0x8100_0004)
    rig.startTransmit()
    rig.post(TestFrames.plain(60), Command.advanced)
    #expect(rig.transmit() == 0)
    rig.set(0x4A80, 0x8100_0005)
    #expect(rig.transmit() == 1)
  }

  @Test func `several queues share the wire`() throws {
    let rig = try EngineRig()
    for queue in [1, 2, 127] {
      rig.startTransmit(queue, count: 64)
      for _ in 0..<60 {
        rig.post(TestFrames.plain(60, seed: UInt8(queue)), Command.advanced, queue: queue)
      }
      rig.transmitter.setTail(queue: queue, 60)
    }
    var polls = 0
    while rig.transmitter.poll(rig.wire, limit: 20) > 0 { polls += 1 }
    #expect(polls == 9)
    #expect(rig.wire.outgoing.count == 180)
    let early = Set(rig.wire.outgoing[0..<60].map { $0[14] })
    #expect(early.count == 3, "each queue had its turn")
    for queue in [1, 2, 127] { #expect(rig.transmitHead(queue) == 60) }
  }

  @Test func `memory that is not mapped is not sent`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.postRaw(0x1000, Command.advanced | Command.rs | 100)
    rig.postRaw(EngineRig.base + UInt64(EngineRig.size) - 50, Command.advanced | Command.rs | 100)
    rig.postRaw(.max - 20, Command.legacy | Command.rs | 100)
    rig.post(TestFrames.plain(60), Command.advanced | Command.rs)
    #expect(rig.transmit() == 4)
    #expect(rig.wire.outgoing.count == 1)
    #expect((0..<4).allSatisfy { rig.isDone($0) })
    #expect(rig.dma.violations == 3)
    #expect(rig.transmitter.rejectedFrames == 3)
  }

  @Test func `a frame over two mappings goes out`() throws {
    let rig = try EngineRig()
    let frame = TestFrames.plain(300)
    let (low, high) = (
      UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096),
      UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    )
    defer {
      low.deallocate()
      high.deallocate()
    }
    try rig.dma.map(iova: 0x1_0000_0000, size: 4096, base: low, isWritable: false)
    try rig.dma.map(iova: 0x1_0000_1000, size: 4096, base: high, isWritable: false)
    (low + 3996).copyMemory(from: frame, byteCount: 100)
    frame[100...].withUnsafeBytes { high.copyMemory(from: $0.baseAddress!, byteCount: 200) }
    rig.startTransmit()
    rig.postRaw(0x1_0000_0000 + 3996, Command.advanced | 300)
    #expect(rig.transmit() == 1)
    #expect(rig.wire.outgoing == [frame])
  }

  @Test func `one poll reads a bounded number of descriptors`() throws {
    let rig = try EngineRig()
    rig.startTransmit(count: 4096)
    // Frames to be cut may have 1,024 parts; these make no sense, each on all of them.
    for _ in 0..<3 {
      for _ in 0..<1023 { rig.postRaw(EngineRig.base, Command.more | Command.tse | 1) }
      rig.postRaw(EngineRig.base, Command.advanced | Command.tse | 1)
    }
    #expect(rig.transmit() == 1)
    #expect(rig.transmit() == 1)
    #expect(rig.transmit() == 1)
    #expect(rig.transmit() == 0)
    #expect(rig.transmitter.rejectedFrames == 3)
  }

  @Test func `too many descriptors for one frame are passed over up to its end`() throws {
    let rig = try EngineRig()
    rig.startTransmit(count: 64)
    for _ in 0..<45 { rig.post([1, 2], Command.more) }
    rig.post([3], Command.advanced | Command.rs)
    rig.post(TestFrames.plain(60), Command.advanced)
    rig.transmit()
    #expect(rig.wire.outgoing == [TestFrames.plain(60)])
    #expect(rig.transmitter.rejectedFrames == 1)
    #expect(rig.isDone(45))
  }

  @Test func `a frame longer than the card can send is passed over`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.postRaw(EngineRig.base, Command.advanced | 0xFFFF)
    rig.postRaw(EngineRig.base, Command.more | 10000)
    rig.postRaw(EngineRig.base, Command.more | 10000)
    rig.postRaw(EngineRig.base, Command.advanced | 10000)
    rig.post(TestFrames.plain(60), Command.advanced)
    rig.transmit()
    #expect(rig.wire.outgoing == [TestFrames.plain(60)])
    #expect(rig.transmitter.rejectedFrames == 2)
  }

  @Test func `a ring that goes away stops its queue until it is back`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.post(TestFrames.plain(60), Command.advanced)
    rig.dma.unmapAll()
    #expect(rig.transmit() == 0)
    #expect(rig.transmit() == 0)
    #expect(rig.dma.violations == 1, "shown once, not in every poll")
    try rig.dma.map(
      iova: EngineRig.base, size: EngineRig.size, base: rig.memory, isWritable: true)
    #expect(rig.transmit() == 1)
  }

  @Test func `a ring in pages of their own works`() throws {
    let rig = try EngineRig()
    rig.dma.unmapAll()
    for page in 0..<(EngineRig.size / 4096) {
      try rig.dma.map(
        iova: EngineRig.base + UInt64(page * 4096), size: 4096, base: rig.memory + page * 4096,
        isWritable: true)
    }
    rig.startTransmit(count: 512)
    rig.startReceive(count: 512)
    for i in 0..<300 {
      let frame = TestFrames.plain(1500, seed: UInt8(truncatingIfNeeded: i))
      rig.post(frame, Command.advanced | Command.rs)
      #expect(rig.transmit() == 1)
      #expect(rig.wire.outgoing.last == frame)
      rig.receive(TestFrames.plain(1500))
      #expect(rig.received(i).length == 1500)
    }
    #expect(rig.dma.violations == 0)
  }

  @Test func `statistics count frames, sizes and octets with FCS`() throws {
    let rig = try EngineRig()
    rig.set(0x8600, 3)
    rig.startTransmit()
    for size in [60, 61, 124, 252, 508, 1020, 1514, 42] {
      rig.post(TestFrames.plain(size), Command.advanced)
    }
    rig.post(TestFrames.plain(60, to: [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), Command.legacy)
    rig.post(TestFrames.plain(60, to: [0x01, 0, 0x5E, 0, 0, 1]), Command.legacy)
    rig.transmit()
    #expect((0..<6).map { rig.take(0x40D8 + 4 * $0) } == [4, 1, 1, 1, 1, 2])
    #expect(rig.take(0x4080) == 10, "GPTC")
    #expect(rig.take(0x40D4) == 10, "TPT")
    #expect(rig.take(0x40F0) == 1, "MPTC")
    #expect(rig.take(0x40F4) == 1, "BPTC")
    let octets: UInt32 = [60, 61, 124, 252, 508, 1020, 1514, 60, 60, 60].reduce(0, +)
    #expect(rig.take(0x4090) == octets + 40, "GOTCL")
    #expect(rig.take(0x6030 + 3 * 0x40) == 10, "QPTC of the set that TQSM names")
    #expect(rig.take(0x8700 + 24) == octets, "QBTC")
  }
}
