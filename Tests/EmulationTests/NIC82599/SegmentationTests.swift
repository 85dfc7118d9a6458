import Testing

@testable import Emulation

@Suite struct SegmentationTests {
  /// A large TCP frame as Linux leaves it: lengths and IP checksum 0, pseudo header sum without length.
  private func large(
    _ data: [UInt8], isIPv4: Bool = true, flags: UInt16 = 0x19, options: [UInt8] = []
  ) -> [UInt8] {
    let (source, target) =
      isIPv4 ? (TestFrames.v4a, TestFrames.v4b) : (TestFrames.v6a, TestFrames.v6b)
    var tcp = TestFrames.tcp(source, target, flags: flags, options: options, data)
    let pseudo = TestFrames.sum(TestFrames.pseudoHeader(source, target, 6, 0))
    tcp.replaceSubrange(16..<18, with: TestFrames.big(pseudo))
    var ip =
      isIPv4
      ? TestFrames.ipv4(source, target, 6, [], identification: 0xFFFE)
      : TestFrames.ipv6(source, target, 6, [])
    if isIPv4 {
      ip.replaceSubrange(2..<4, with: [0, 0])
      ip.replaceSubrange(10..<12, with: [0, 0])
    }
    return TestFrames.ethernet(type: isIPv4 ? 0x0800 : 0x86DD, ip + tcp, pad: false)
  }

  private func data(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
  }

  /// The context of such a frame.
  private func context(_ mss: Int, isIPv4: Bool = true, l4: Int = 20, tag: UInt64 = 0)
    -> (UInt64, UInt64)
  {
    let low = tag << 16 | UInt64(14 << 9 | (isIPv4 ? 20 : 40))
    let high: UInt64 = 1 << 29 | 2 << 20 | 1 << 11 | (isIPv4 ? 1 << 10 : 0)
    return (low, high | UInt64(l4) << 40 | UInt64(mss) << 48)
  }

  private static let tso =
    Command.advanced | Command.rs | Command.tse | Command.ixsm | Command.txsm

  /// Checks every field of every segment.
  private func check(
    _ segments: [[UInt8]], _ data: [UInt8], mss: Int, isIPv4: Bool = true, flags: Int = 0x19,
    options: [UInt8] = [], sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let network = 14
    let transport = network + (isIPv4 ? 20 : 40)
    let start = transport + 20 + options.count
    var offset = 0
    let count = max(1, (data.count + mss - 1) / mss)
    #expect(segments.count == count, sourceLocation: sourceLocation)
    for (i, segment) in segments.enumerated() {
      let size = min(mss, data.count - offset)
      let isLast = i == count - 1
      let length = start + size
      #expect(segment.count == max(60, length), sourceLocation: sourceLocation)
      #expect(Array(segment[0..<12]) == EngineRig.mac + TestFrames.peer)
      if isIPv4 {
        #expect(TestFrames.word(segment, network + 2) == length - 14)
        #expect(TestFrames.word(segment, network + 4) == (0xFFFE + i) & 0xFFFF)
        #expect(TestFrames.sum(Array(segment[network..<transport])) == 0xFFFF)
      } else {
        #expect(TestFrames.word(segment, network + 4) == length - 54)
      }
      #expect(TestFrames.double(segment, transport + 4) == 0x1020_3040 + offset)
      var expected = flags
      if count > 1 {
        // FIN and PSH only in the last, by the masks of the rig; CWR not there.
        if !isLast { expected &= 0xFF6 }
        if isLast { expected &= 0xF7F }
      }
      #expect(TestFrames.word(segment, transport + 12) & 0xFFF == expected)
      let addresses =
        isIPv4 ? TestFrames.v4a + TestFrames.v4b : TestFrames.v6a + TestFrames.v6b
      let l4 = Array(segment[transport..<length])
      let pseudo = TestFrames.pseudoHeader(addresses, [], 6, l4.count)
      #expect(TestFrames.sum(pseudo + l4) == 0xFFFF, sourceLocation: sourceLocation)
      #expect(Array(segment[start..<length]) == Array(data[offset..<offset + size]))
      #expect(segment[length...].allSatisfy { $0 == 0 })
      offset += size
    }
  }

  @Test(arguments: [1, 535, 536, 537, 1448, 5000, 20000])
  func `segments over IPv4 are right in every field`(count: Int) throws {
    let data = data(count)
    let rig = try EngineRig()
    rig.startTransmit()
    let context = context(536)
    rig.postRaw(context.0, context.1)
    rig.post(large(data), Self.tso)
    rig.transmit()
    check(rig.wire.outgoing, data, mss: 536)
    #expect(rig.isDone(1))
    #expect(rig.take(0x4080) == UInt32((count + 535) / 536), "GPTC counts segments")
  }

  @Test func `segments over IPv6 are right in every field`() throws {
    let data = data(9000)
    let rig = try EngineRig()
    rig.startTransmit()
    let context = context(1428, isIPv4: false)
    rig.postRaw(context.0, context.1)
    rig.post(large(data, isIPv4: false), Self.tso)
    rig.transmit()
    check(rig.wire.outgoing, data, mss: 1428, isIPv4: false)
  }

  @Test func `TCP options are repeated`() throws {
    let options: [UInt8] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]
    let data = data(4000)
    let rig = try EngineRig()
    rig.startTransmit()
    let context = context(1448, l4: 32)
    rig.postRaw(context.0, context.1)
    rig.post(large(data, options: options), Self.tso)
    rig.transmit()
    check(rig.wire.outgoing, data, mss: 1448, options: options)
    #expect(rig.wire.outgoing.allSatisfy { Array($0[54..<66]) == options })
  }

  @Test func `a large frame comes from many descriptors as Linux writes them`() throws {
    let data = data(60000)
    let frame = large(data)
    let rig = try EngineRig()
    rig.startTransmit()
    let context = context(1448)
    rig.postRaw(context.0, context.1)
    var offset = 0
    while offset < frame.count {
      let size = min(4096, frame.count - offset)
      let isLast = offset + size == frame.count
      let flags = Self.tso & ~(isLast ? 0 : 1 << 24 | Command.rs)
      rig.post([UInt8](frame[offset..<offset + size]), flags)
      offset += size
    }
    rig.transmit()
    check(rig.wire.outgoing, data, mss: 1448)
    #expect(rig.transmitHead() == rig.transmitTails[0])
  }

  @Test func `segments wait for the wire and the frame is done after the last`() throws {
    let data = data(10 * 1000)
    let rig = try EngineRig()
    rig.startTransmit()
    let context = context(1000)
    rig.postRaw(context.0, context.1)
    rig.post(large(data), Self.tso)
    rig.post(TestFrames.plain(60), Command.advanced)
    rig.wire.room = 4
    rig.transmit()
    #expect(!rig.isDone(1))
    rig.wire.room = 100
    // A poll stops at its limit, too.
    #expect(rig.transmitter.poll(rig.wire, limit: 3) == 3)
    #expect(!rig.isDone(1))
    while rig.transmitter.poll(rig.wire, limit: 3) > 0 {}
    #expect(rig.isDone(1))
    #expect(rig.wire.outgoing.last == TestFrames.plain(60))
    check(Array(rig.wire.outgoing.dropLast()), data, mss: 1000)
  }

  @Test func `a queue that is disabled in mid-frame forgets it`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    let context = context(1000)
    rig.postRaw(context.0, context.1)
    rig.post(large(data(10000)), Self.tso)
    rig.wire.room = 2
    rig.transmit()
    rig.transmitter.disable(queue: 0)
    rig.wire.room = 100
    #expect(rig.transmitter.poll(rig.wire, limit: 64) == 0)
    rig.startTransmit(1)
    rig.post(TestFrames.plain(60), Command.advanced, queue: 1)
    #expect(rig.transmit(1) == 1)
    #expect(rig.wire.outgoing.count == 3)
  }

  @Test func `each segment gets the VLAN tag`() throws {
    let data = data(3000)
    let rig = try EngineRig()
    rig.startTransmit()
    let context = context(1400, tag: 0x2005)
    rig.postRaw(context.0, context.1)
    rig.post(large(data), Self.tso | Command.vle)
    rig.transmit()
    #expect(rig.wire.outgoing.allSatisfy { Array($0[12..<16]) == [0x81, 0, 0x20, 5] })
    check(rig.wire.outgoing.map { Array($0[0..<12] + $0[16...]) }, data, mss: 1400)
  }

  @Test func `short segments are padded and the next one is whole`() throws {
    let data = data(7)
    let rig = try EngineRig()
    rig.startTransmit()
    let context = context(2)
    rig.postRaw(context.0, context.1)
    rig.post(large(data), Self.tso)
    rig.transmit()
    check(rig.wire.outgoing, data, mss: 2)
  }

  @Test func `the flag masks are those of DTXTCPFLG`() throws {
    let rig = try EngineRig()
    rig.set(0x4A88, 0x0F0F_00FF)
    rig.set(0x4A8C, 0x0001)
    rig.startTransmit()
    let context = context(100)
    rig.postRaw(context.0, context.1)
    rig.post(large(data(300), flags: 0x1FF), Self.tso)
    rig.transmit()
    #expect(rig.wire.outgoing.map { TestFrames.word($0, 46) & 0xFFF } == [0xFF, 0x10F, 0x001])
  }

  @Test func `UDP is cut as well`() throws {
    let data = data(2500)
    var udp = TestFrames.udp(TestFrames.v4a, TestFrames.v4b, data)
    let pseudo = TestFrames.pseudoHeader(TestFrames.v4a, TestFrames.v4b, 17, 0)
    udp.replaceSubrange(6..<8, with: TestFrames.big(TestFrames.sum(pseudo)))
    let frame = TestFrames.ethernet(
      type: 0x0800, TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 17, udp))
    let rig = try EngineRig()
    rig.startTransmit()
    rig.postRaw(UInt64(14 << 9 | 20), 1 << 29 | 2 << 20 | 1 << 10 | 8 << 40 | 1000 << 48)
    rig.post(frame, Self.tso)
    rig.transmit()
    #expect(rig.wire.outgoing.map(\.count) == [1042, 1042, 542])
    for segment in rig.wire.outgoing {
      let udp = Array(segment[34...])
      #expect(TestFrames.word(udp, 4) == udp.count)
      let pseudo = TestFrames.pseudoHeader(TestFrames.v4a, TestFrames.v4b, 17, udp.count)
      #expect(TestFrames.sum(pseudo + udp) == 0xFFFF)
    }
    #expect(rig.wire.outgoing.flatMap { $0[42...] } == data)
  }

  @Test(arguments: [
    (UInt64(14 << 9 | 20), 0), (UInt64(14 << 9 | 20), 16000 << 48), (UInt64(4 << 9 | 20), 9),
    (UInt64(14 << 9 | 19), 9), (UInt64(0xFFFF), 9), (UInt64(15 << 9 | 20), 9),
  ])
  func `a context that does not fit its frame sends nothing`(low: UInt64, mss: Int) throws {
    let rig = try EngineRig()
    rig.startTransmit()
    let high: UInt64 = 1 << 29 | 2 << 20 | 1 << 11 | 20 << 40
    rig.postRaw(low, high | (mss > 100 ? 16384 : UInt64(mss)) << 48)
    rig.post(large(data(1000)), Self.tso)
    rig.post(TestFrames.plain(60), Command.advanced)
    rig.transmit()
    #expect(rig.wire.outgoing == [TestFrames.plain(60)])
    #expect(rig.isDone(1))
    #expect(rig.transmitter.rejectedFrames == 1)
  }
}
