import Testing

@testable import Emulation

/// Checksums through context descriptors as Linux writes them (observed, 2.2 to 2.4 and 6.3).
@Suite struct TransmitOffloadTests {
  /// A frame whose TCP or UDP checksum field holds the sum of the pseudo header, as drivers leave it.
  private func prepared(_ ip: [UInt8], at field: Int, _ kind: UInt8) -> [UInt8] {
    var frame = TestFrames.ethernet(type: ip[0] >> 4 == 4 ? 0x0800 : 0x86DD, ip, pad: false)
    let isIPv4 = ip[0] >> 4 == 4
    let addresses = isIPv4 ? Array(ip[12..<20]) : Array(ip[8..<40])
    let length = ip.count - (isIPv4 ? 20 : 40)
    let pseudo = TestFrames.pseudoHeader(addresses, [], kind, length)
    frame.replaceSubrange(field..<field + 2, with: TestFrames.big(TestFrames.sum(pseudo)))
    return frame
  }

  private func send(_ frame: [UInt8], context: (UInt64, UInt64), flags: UInt64) throws -> [UInt8] {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.postRaw(context.0, context.1)
    rig.post(frame, Command.advanced | Command.rs | flags)
    rig.transmit()
    #expect(rig.wire.outgoing.count == 1)
    #expect(rig.isDone(1))
    return rig.wire.outgoing.first ?? []
  }

  @Test(arguments: [0, 1, 26, 333, 1400])
  func `a TCP checksum over IPv4 is inserted without the context's IPV4 bit`(count: Int) throws {
    let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 11) }
    let tcp = TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, data)
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 6, tcp)
    let sent = try send(
      prepared(ip, at: 50, 6), context: (0x1C14, 0x2020_0800), flags: Command.txsm)
    #expect(sent == TestFrames.ethernet(type: 0x0800, ip))
  }

  @Test func `a TCP checksum over IPv6 is inserted`() throws {
    let tcp = TestFrames.tcp(TestFrames.v6a, TestFrames.v6b, [1, 2, 3, 4, 5])
    let ip = TestFrames.ipv6(TestFrames.v6a, TestFrames.v6b, 6, tcp)
    let sent = try send(
      prepared(ip, at: 70, 6), context: (0x1C28, 0x2020_0800), flags: Command.txsm)
    #expect(sent == TestFrames.ethernet(type: 0x86DD, ip))
  }

  @Test func `a UDP checksum is inserted`() throws {
    let udp = TestFrames.udp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3, 4, 5])
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 17, udp)
    let sent = try send(
      prepared(ip, at: 40, 17), context: (0x1C14, 0x2020_0000), flags: Command.txsm)
    #expect(sent == TestFrames.ethernet(type: 0x0800, ip))
  }

  @Test func `a UDP checksum of 0 goes out as all ones`() throws {
    // Two bytes of data that make the sum all ones.
    let base = TestFrames.udp(TestFrames.v4a, TestFrames.v4b, [0, 0])
    let field = TestFrames.word(base, 6)
    let udp = TestFrames.udp(
      TestFrames.v4a, TestFrames.v4b, TestFrames.big(UInt16(field)))
    #expect(udp[6...7] == [0xFF, 0xFF])
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 17, udp)
    let sent = try send(
      prepared(ip, at: 40, 17), context: (0x1C14, 0x2020_0000), flags: Command.txsm)
    #expect(sent == TestFrames.ethernet(type: 0x0800, ip))
  }

  @Test func `an IPv4 header checksum replaces what was there`() throws {
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 6, [UInt8](repeating: 3, count: 40))
    var frame = TestFrames.ethernet(type: 0x0800, ip)
    frame[24] ^= 0x5A
    let sent = try send(frame, context: (0x1C14, 0x2020_0800), flags: Command.ixsm)
    #expect(sent == TestFrames.ethernet(type: 0x0800, ip))
  }

  @Test func `an SCTP checksum is inserted`() throws {
    var packet: [UInt8] = [0, 7, 0, 9, 1, 2, 3, 4, 0xFF, 0, 0xFF, 0, 0, 3, 0, 8]
    packet += [UInt8](repeating: 5, count: 30)
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 132, packet)
    let sent = try send(
      TestFrames.ethernet(type: 0x0800, ip), context: (0x1C14, 0x2020_1000), flags: Command.txsm)
    packet.replaceSubrange(8..<12, with: [0, 0, 0, 0])
    let check = TestFrames.crc(packet, polynomial: 0x82F6_3B78)
    #expect(sent[42..<46] == TestFrames.little(check)[...])
    #expect(sent[46...] == TestFrames.ethernet(type: 0x0800, ip)[46...])
  }

  @Test func `the sum covers data from several descriptors`() throws {
    let data = (0..<500).map { UInt8(truncatingIfNeeded: $0) }
    let tcp = TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, data)
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 6, tcp)
    let frame = prepared(ip, at: 50, 6)
    let rig = try EngineRig()
    rig.startTransmit()
    rig.postRaw(0x1C14, 0x2020_0800)
    rig.post([UInt8](frame[0..<101]), Command.more | Command.txsm)
    rig.post([UInt8](frame[101...]), Command.advanced | Command.txsm)
    rig.transmit()
    #expect(rig.wire.outgoing == [TestFrames.ethernet(type: 0x0800, ip)])
  }

  @Test func `a context stays until it is overwritten`() throws {
    let tcp = TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3])
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 6, tcp)
    let rig = try EngineRig()
    rig.startTransmit()
    rig.postRaw(0x1C14, 0x2020_0800)
    for _ in 0..<3 { rig.post(prepared(ip, at: 50, 6), Command.advanced | Command.txsm) }
    rig.transmit()
    let right = TestFrames.ethernet(type: 0x0800, ip)
    #expect(rig.wire.outgoing == [right, right, right])
  }

  @Test func `a legacy descriptor inserts a checksum where it says`() throws {
    let udp = TestFrames.udp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3, 4, 5, 6])
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 17, udp)
    let rig = try EngineRig()
    rig.startTransmit()
    rig.post(prepared(ip, at: 40, 17), Command.legacy | 1 << 26 | 40 << 16 | 34 << 40)
    rig.transmit()
    #expect(rig.wire.outgoing == [TestFrames.ethernet(type: 0x0800, ip)])
  }

  @Test func `a checksum outside the frame is not inserted`() throws {
    let frame = TestFrames.plain(70)
    for context: (UInt64, UInt64) in [
      (0xFFFF, 0x2020_0800), (0x1C00 | 50, 0x2020_0800), (0, 0x2020_1000), (0xFE00, 0x2020_0000),
      (0x1C14, 0x2020_1800),
    ] {
      let sent = try send(frame, context: context, flags: Command.txsm | Command.ixsm)
      #expect(sent.count == 70)
    }
    let rig = try EngineRig()
    rig.startTransmit()
    rig.post(frame, Command.legacy | 1 << 26 | 69 << 16 | 20 << 40)
    rig.post(frame, Command.legacy | 1 << 26 | 50 << 16 | 70 << 40)
    rig.transmit()
    #expect(rig.wire.outgoing == [frame, frame])
  }
}
