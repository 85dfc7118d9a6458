import Testing

@testable import Emulation

/// The vectors of the descriptor reference, 4.2.
@Suite struct ReceiveSideScalingTests {
  struct Vector: Sendable, CustomTestStringConvertible {
    var source: [UInt8]
    var target: [UInt8]
    var ports: (UInt16, UInt16)
    var plain: UInt32
    var withPorts: UInt32
    var testDescription: String { "\(source) \(target)" }

    init(
      _ source: [UInt8], _ from: UInt16, _ target: [UInt8], _ to: UInt16, _ plain: UInt32,
      _ withPorts: UInt32
    ) {
      (self.source, self.target, ports) = (source, target, (from, to))
      (self.plain, self.withPorts) = (plain, withPorts)
    }
  }

  /// An IPv6 address of 16-bit groups.
  static func v6(_ groups: UInt16...) -> [UInt8] { groups.flatMap { TestFrames.big($0) } }

  static let vectors = [
    Vector(
      [66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766, 0x323E_8FC2, 0x51CC_C178),
    Vector(
      [199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739, 0xD718_262A, 0xC626_B0EA),
    Vector(
      [24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024, 0xD2D0_A5DE, 0x5C2B_394A),
    Vector(
      [38, 27, 205, 30], 48228, [209, 142, 163, 6], 2217, 0x8298_9176, 0xAFC7_327F),
    Vector(
      [153, 39, 163, 191], 44251, [202, 188, 127, 2], 1303, 0x5D18_09C5, 0x10E8_28A2),
    Vector(
      v6(0x3FFE, 0x2501, 0x200, 0x1FFF, 0, 0, 0, 7), 2794,
      v6(0x3FFE, 0x2501, 0x200, 3, 0, 0, 0, 1), 1766, 0x2CC1_8CD5, 0x4020_7D3D),
    Vector(
      v6(0x3FFE, 0x501, 8, 0, 0x260, 0x97FF, 0xFE40, 0xEFAB), 14230,
      v6(0xFF02, 0, 0, 0, 0, 0, 0, 1), 4739, 0x0F0C_461C, 0xDDE5_1BBF),
    Vector(
      v6(0x3FFE, 0x1900, 0x4545, 3, 0x200, 0xF8FF, 0xFE21, 0x67CF), 44251,
      v6(0xFE80, 0, 0, 0, 0x200, 0xF8FF, 0xFE21, 0x67CF), 38024, 0x4B61_E985, 0x02D1_FEEF),
  ]

  static let key: [UInt32] = [
    0xDA56_5A6D, 0xC20E_5B25, 0x3D25_6741, 0xB08F_A343, 0xCB2B_CAD0, 0xB430_7BAE, 0xA32D_CB77,
    0x0CF2_3080, 0x3BB7_426A, 0xFA01_ACBE,
  ]

  /// A rig with RSS over these fields and entry `i` of RETA being `(i + 3) % 16`, and 16 queues.
  private func rig(fields: UInt32, mode: UInt32 = 1) throws -> EngineRig {
    let rig = try EngineRig()
    for (i, word) in Self.key.enumerated() { rig.set(0xEB80 + 4 * i, word) }
    for i in 0..<32 {
      let entries = (0..<4).map { UInt32((4 * i + $0 + 3) % 16) | 0xF0 }
      rig.set(0xEB00 + 4 * i, entries.reversed().reduce(0) { $0 << 8 | $1 })
    }
    rig.set(0x5000, 1 << 13)
    rig.set(0xEC80, fields | mode)
    for queue in 0..<16 { rig.startReceive(queue, count: 8) }
    return rig
  }

  private func frame(_ vector: Vector, _ kind: UInt8, fragment: UInt16 = 0) -> [UInt8] {
    let data: [UInt8] = [1, 2, 3, 4]
    let payload =
      kind == 6
      ? TestFrames.tcp(vector.source, vector.target, ports: vector.ports, data)
      : TestFrames.udp(vector.source, vector.target, ports: vector.ports, data)
    if vector.source.count == 4 {
      let ip = TestFrames.ipv4(vector.source, vector.target, kind, payload, fragment: fragment)
      return TestFrames.ethernet(type: 0x0800, ip)
    }
    return TestFrames.ethernet(
      type: 0x86DD, TestFrames.ipv6(vector.source, vector.target, kind, payload))
  }

  /// Receives a frame and checks what its descriptor says, and that it is in the queue of its hash.
  private func expect(
    _ rig: EngineRig, _ frame: [UInt8], type: UInt32, hash: UInt32, mask: Int = 15,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let queue = type == 0 ? 0 : (Int(hash & 0x7F) + 3) % 16 & mask
    let index = rig.receivedHead(queue)
    rig.receive(frame)
    let found = rig.received(index, queue: queue)
    #expect(found.isDone, sourceLocation: sourceLocation)
    #expect(found.rssType == type, sourceLocation: sourceLocation)
    #expect(found.detail == hash, sourceLocation: sourceLocation)
    rig.rearm(queue, index)
    rig.receiver.setTail(queue: queue, UInt32(index))
  }

  @Test(arguments: vectors)
  func `the hash over addresses is that of the reference`(vector: Vector) throws {
    let rig = try rig(fields: 1 << 17 | 1 << 20)
    let type: UInt32 = vector.source.count == 4 ? 2 : 5
    expect(rig, frame(vector, 6), type: type, hash: vector.plain)
    expect(rig, frame(vector, 17), type: type, hash: vector.plain)
  }

  @Test(arguments: vectors)
  func `the hash over TCP ports is that of the reference`(vector: Vector) throws {
    let rig = try rig(fields: 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21)
    let isIPv4 = vector.source.count == 4
    expect(rig, frame(vector, 6), type: isIPv4 ? 1 : 3, hash: vector.withPorts)
    expect(rig, frame(vector, 17), type: isIPv4 ? 2 : 5, hash: vector.plain)
  }

  @Test(arguments: vectors)
  func `the hash over UDP ports is that of the reference`(vector: Vector) throws {
    let rig = try rig(fields: 1 << 22 | 1 << 23)
    let isIPv4 = vector.source.count == 4
    expect(rig, frame(vector, 17), type: isIPv4 ? 7 : 8, hash: vector.withPorts)
    expect(rig, frame(vector, 6), type: 0, hash: 0)
  }

  @Test(arguments: [0x2000, 0x3FFF, 0x0001] as [UInt16])
  func `a fragment is hashed by its addresses alone`(fragment: UInt16) throws {
    let rig = try rig(fields: 1 << 16 | 1 << 17 | 1 << 22)
    let vector = Self.vectors[0]
    expect(rig, frame(vector, 6, fragment: fragment), type: 2, hash: vector.plain)
    expect(rig, frame(vector, 17, fragment: fragment), type: 2, hash: vector.plain)
  }

  @Test func `the types with extension headers take over where the plain ones are off`() throws {
    let rig = try rig(fields: 1 << 18 | 1 << 19 | 1 << 24)
    let vector = Self.vectors[5]
    expect(rig, frame(vector, 6), type: 6, hash: vector.withPorts)
    expect(rig, frame(vector, 17), type: 9, hash: vector.withPorts)
    let other = TestFrames.ipv6(vector.source, vector.target, 59, [])
    expect(rig, TestFrames.ethernet(type: 0x86DD, other), type: 4, hash: vector.plain)
  }

  @Test func `frames that are not IP go to queue 0 without a hash`() throws {
    let rig = try rig(fields: .max & ~0xF)
    expect(rig, TestFrames.plain(100), type: 0, hash: 0)
  }

  @Test func `a tagged frame is hashed as one without a tag`() throws {
    let rig = try rig(fields: 1 << 16)
    let vector = Self.vectors[1]
    var tagged = frame(vector, 6)
    tagged.insert(contentsOf: [0x81, 0, 0, 5], at: 12)
    expect(rig, tagged, type: 1, hash: vector.withPorts)
  }

  @Test func `without PCSD the queue follows the hash and the descriptor does not show it`() throws
  {
    let rig = try rig(fields: 1 << 16)
    rig.set(0x5000, 0)
    let vector = Self.vectors[0]
    rig.receive(frame(vector, 6))
    let queue = (Int(vector.withPorts & 0x7F) + 3) % 16
    #expect(rig.received(0, queue: queue).detail == 0)
    #expect(rig.received(0, queue: queue).rssType == 1)
  }

  @Test func `with MRQE off everything goes to queue 0`() throws {
    let rig = try rig(fields: 1 << 16, mode: 0)
    expect(rig, frame(Self.vectors[0], 6), type: 0, hash: 0)
  }

  @Test(arguments: [(0xA, 3), (0xB, 1)] as [(UInt32, Int)])
  func `with pools RSS spreads over the queues of one`(mode: UInt32, mask: Int) throws {
    let rig = try rig(fields: 1 << 17, mode: mode)
    for vector in Self.vectors.prefix(5) {
      expect(rig, frame(vector, 6), type: 2, hash: vector.plain, mask: mask)
    }
  }

  @Test func `a new key and a new table count from the next frame on`() throws {
    let rig = try rig(fields: 1 << 17)
    let vector = Self.vectors[0]
    expect(rig, frame(vector, 6), type: 2, hash: vector.plain)
    for i in 0..<10 { rig.set(0xEB80 + 4 * i, 0) }
    expect(rig, frame(vector, 6), type: 2, hash: 0)
    for i in 0..<32 { rig.set(0xEB00 + 4 * i, 0x0909_0909) }
    rig.receive(frame(vector, 6))
    #expect(rig.received(0, queue: 9).isDone)
  }

  @Test func `statistics of a queue go to the set that RQSMR names`() throws {
    let rig = try rig(fields: 1 << 17)
    let vector = Self.vectors[0]
    let queue = (Int(vector.plain & 0x7F) + 3) % 16
    rig.set(0x2300 + 4 * (queue / 4), 0xB << (8 * UInt32(queue % 4)))
    rig.receive(frame(vector, 6), frame(vector, 6))
    #expect(rig.take(0x1030 + 0x40 * 0xB) == 2, "QPRC")
    #expect(rig.take(0x1034 + 0x40 * 0xB) == 120, "QBRC_L")
  }
}
