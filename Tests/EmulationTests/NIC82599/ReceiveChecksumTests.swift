import Testing

@testable import Emulation

@Suite struct ReceiveChecksumTests {
  static let ipv4: UInt32 = 1 << 4
  static let options: UInt32 = 1 << 5
  static let ipv6: UInt32 = 1 << 6
  static let extensions: UInt32 = 1 << 7
  static let tcp: UInt32 = 1 << 8
  static let udp: UInt32 = 1 << 9
  static let sctp: UInt32 = 1 << 10

  static let ipChecked: UInt32 = 1 << 6
  static let l4Checked: UInt32 = 1 << 5
  static let udpChecked: UInt32 = 1 << 4
  static let l4Error: UInt32 = 1 << 30
  static let ipError: UInt32 = 1 << 31

  /// Receives a frame and checks its packet type and status.
  private func expect(
    _ frame: [UInt8], type: UInt32, status: UInt32, _ rig: EngineRig? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let rig = try rig ?? EngineRig()
    rig.startReceive()
    rig.receive(frame)
    let found = rig.received(0)
    #expect(found.packetType == type, sourceLocation: sourceLocation)
    #expect(found.status == status | 3, sourceLocation: sourceLocation)
  }

  private func v4(
    _ kind: UInt8, _ payload: [UInt8], options: [UInt8] = [], fragment: UInt16 = 0
  ) -> [UInt8] {
    let ip = TestFrames.ipv4(
      TestFrames.v4a, TestFrames.v4b, kind, payload, fragment: fragment, options: options)
    return TestFrames.ethernet(type: 0x0800, ip)
  }

  private func v6(_ kind: UInt8, _ payload: [UInt8]) -> [UInt8] {
    TestFrames.ethernet(
      type: 0x86DD, TestFrames.ipv6(TestFrames.v6a, TestFrames.v6b, kind, payload))
  }

  @Test(arguments: [0, 1, 2, 3, 5, 8, 13, 31, 32, 33, 64, 777, 1459, 1460])
  func `right checksums are reported for every length`(count: Int) throws {
    let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 200) }
    let (a4, b4) = (TestFrames.v4a, TestFrames.v4b)
    let (a6, b6) = (TestFrames.v6a, TestFrames.v6b)
    let good = Self.ipChecked | Self.l4Checked
    try expect(v4(6, TestFrames.tcp(a4, b4, data)), type: Self.ipv4 | Self.tcp, status: good)
    try expect(
      v4(17, TestFrames.udp(a4, b4, data)), type: Self.ipv4 | Self.udp,
      status: good | Self.udpChecked)
    if count < 1441 {
      try expect(
        v6(6, TestFrames.tcp(a6, b6, data)), type: Self.ipv6 | Self.tcp, status: Self.l4Checked)
      try expect(
        v6(17, TestFrames.udp(a6, b6, data)), type: Self.ipv6 | Self.udp,
        status: Self.l4Checked | Self.udpChecked)
    }
  }

  @Test func `every damaged bit of a TCP segment is found`() throws {
    let frame = v4(6, TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3, 4, 5]))
    let rig = try EngineRig()
    for bit in 0..<8 * 25 {
      var bad = frame
      bad[34 + bit / 8] ^= 1 << UInt8(bit % 8)
      try expect(
        bad, type: Self.ipv4 | Self.tcp, status: Self.ipChecked | Self.l4Checked | Self.l4Error, rig
      )
    }
  }

  @Test func `every damaged bit of the pseudo header is found`() throws {
    let frame = v6(6, TestFrames.tcp(TestFrames.v6a, TestFrames.v6b, [1, 2, 3, 4, 5]))
    let rig = try EngineRig()
    for bit in 0..<8 * 32 {
      var bad = frame
      bad[22 + bit / 8] ^= 1 << UInt8(bit % 8)
      try expect(bad, type: Self.ipv6 | Self.tcp, status: Self.l4Checked | Self.l4Error, rig)
    }
  }

  @Test func `a damaged IPv4 header is reported`() throws {
    var frame = v4(6, TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3]))
    frame[22] ^= 1  // time to live: in no pseudo header
    try expect(
      frame, type: Self.ipv4 | Self.tcp,
      status: Self.ipChecked | Self.ipError | Self.l4Checked)
  }

  @Test func `errors are in the high byte of a legacy status`() throws {
    let rig = try EngineRig()
    rig.startReceive(legacy: true)
    var frame = v4(6, TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3]))
    rig.receive(frame)
    frame[22] ^= 1
    frame[54] ^= 1
    rig.receive(frame)
    #expect(rig.received(0).legacyStatus == 0x63)
    #expect(rig.received(0).legacyErrors == 0)
    #expect(rig.received(1).legacyStatus == 0x63)
    #expect(rig.received(1).legacyErrors == 0xC0)
  }

  @Test func `a UDP checksum of 0 is none`() throws {
    let v4a = TestFrames.v4a
    let frame = v4(17, TestFrames.udp(v4a, TestFrames.v4b, [1, 2, 3], hasChecksum: false))
    try expect(frame, type: Self.ipv4 | Self.udp, status: Self.ipChecked)
  }

  @Test func `the padding of a short frame is not summed`() throws {
    var frame = v4(17, TestFrames.udp(TestFrames.v4a, TestFrames.v4b, [1]))
    #expect(frame.count == 60)
    frame[59] = 0xAB
    try expect(
      frame, type: Self.ipv4 | Self.udp,
      status: Self.ipChecked | Self.l4Checked | Self.udpChecked)
  }

  @Test func `IPv4 options are part of the header's checksum`() throws {
    let tcp = TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, [9, 8, 7])
    let options: [UInt8] = [7, 7, 4, 0xFF, 1, 2, 3, 0]
    let type = Self.ipv4 | Self.options | Self.tcp
    var frame = v4(6, tcp, options: options)
    try expect(frame, type: type, status: Self.ipChecked | Self.l4Checked)
    frame[36] ^= 1
    try expect(frame, type: type, status: Self.ipChecked | Self.ipError | Self.l4Checked)
  }

  @Test(arguments: [0x2000, 0x0001, 0x3FFF] as [UInt16])
  func `the transport of a fragment is not checked`(fragment: UInt16) throws {
    let udp = TestFrames.udp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3])
    try expect(v4(17, udp, fragment: fragment), type: Self.ipv4, status: Self.ipChecked)
  }

  @Test func `a UDP fragment's sum and identification are reported with IPPCSE`() throws {
    let rig = try EngineRig()
    rig.set(0x5000, 1 << 12)
    let payload = TestFrames.udp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3])
    rig.startReceive()
    rig.receive(v4(17, payload, fragment: 0x2000), v4(17, payload))
    #expect(rig.received(0).status == Self.ipChecked | 1 << 10 | 3)
    #expect(rig.received(0).detail == 0x1234_0000 | UInt32(TestFrames.sum(payload)))
    #expect(rig.received(1).detail == 0)
    #expect(rig.received(1).status & 1 << 10 == 0)
  }

  @Test func `IPv6 extension headers are followed to the transport`() throws {
    let tcp = TestFrames.tcp(TestFrames.v6a, TestFrames.v6b, [5, 5, 5])
    let hop: [UInt8] = [43, 0, 1, 4, 0, 0, 0, 0]
    let routing: [UInt8] = [60, 1] + [UInt8](repeating: 0, count: 14)
    let destination: [UInt8] = [6, 0, 1, 4, 0, 0, 0, 0]
    let type = Self.ipv6 | Self.extensions
    try expect(
      v6(0, hop + routing + destination + tcp), type: type | Self.tcp, status: Self.l4Checked)
    // The authentication header counts its length in 32-bit words.
    let authentication: [UInt8] = [6, 2] + [UInt8](repeating: 0, count: 14)
    try expect(v6(51, authentication + tcp), type: type | Self.tcp, status: Self.l4Checked)
    let fragment: [UInt8] = [6, 0, 0, 1, 0, 0, 0, 7]
    try expect(v6(44, fragment + tcp), type: type, status: 0)
  }

  @Test func `SCTP has its own checksum`() throws {
    var packet: [UInt8] = [0, 7, 0, 9, 1, 2, 3, 4, 0, 0, 0, 0, 0, 3, 0, 8, 5, 6, 7, 8]
    let check = TestFrames.crc(packet, polynomial: 0x82F6_3B78)
    packet.replaceSubrange(8..<12, with: TestFrames.little(check))
    let type = Self.ipv4 | Self.sctp
    try expect(v4(132, packet), type: type, status: Self.ipChecked | Self.l4Checked)
    packet[19] ^= 1
    try expect(
      v4(132, packet), type: type, status: Self.ipChecked | Self.l4Checked | Self.l4Error)
  }

  @Test func `lengths that lie are not followed`() throws {
    let tcp = TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3])
    for total: UInt16 in [0, 19, 27, 500, 0xFFFF] {
      var frame = v4(6, tcp)
      frame.replaceSubrange(16..<18, with: TestFrames.big(total))
      frame.replaceSubrange(24..<26, with: [0, 0])
      frame.replaceSubrange(24..<26, with: TestFrames.big(~TestFrames.sum([UInt8](frame[14..<34]))))
      try expect(frame, type: Self.ipv4 | Self.tcp, status: Self.ipChecked)
    }
    for length: UInt16 in [0, 7, 500, 0xFFFF] {
      var udp = TestFrames.udp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3])
      udp.replaceSubrange(4..<6, with: TestFrames.big(length))
      try expect(
        v4(17, udp), type: Self.ipv4 | Self.udp,
        status: Self.ipChecked | Self.udpChecked | Self.l4Checked | Self.l4Error)
    }
    for header: UInt8 in [0x40, 0x44, 0x4F, 0x55, 0x65] {
      var frame = v4(6, [])
      frame[14] = header
      let rig = try EngineRig()
      rig.startReceive()
      rig.receive(frame)
      #expect(rig.received(0).isDone)
    }
  }

  @Test func `other frames have no type`() throws {
    try expect(TestFrames.plain(60), type: 0, status: 0)
    try expect(TestFrames.ethernet(type: 0x0806, [0, 1, 8, 0, 6, 4]), type: 0, status: 0)
  }
}
