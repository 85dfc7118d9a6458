import Testing

@testable import Emulation

@Suite struct VLANTests {
  @Test(arguments: [false, true])
  func `VME moves the tag to the descriptor`(legacy: Bool) throws {
    let rig = try EngineRig()
    rig.startReceive(legacy: legacy, control: 1 << 30)
    let payload = [UInt8](repeating: 7, count: 100)
    rig.receive(TestFrames.ethernet(tag: 0xE123, payload), TestFrames.ethernet(payload))
    let found = rig.received(0)
    #expect(found.tag == 0xE123)
    #expect((legacy ? found.legacyLength : found.length) == 114)
    #expect(UInt32(legacy ? UInt32(found.legacyStatus) : found.status) == 0x0B)
    #expect(rig.receivedBytes(0, 114) == TestFrames.ethernet(payload))
    #expect(rig.received(1).tag == 0)
    #expect(rig.take(0x4088) == 118 + 114, "the tag was on the wire")
  }

  @Test func `without VME the tag stays in the frame`() throws {
    let rig = try EngineRig()
    rig.startReceive()
    let frame = TestFrames.ethernet(tag: 5, [UInt8](repeating: 7, count: 100))
    rig.receive(frame)
    #expect(rig.received(0).status == 0x03)
    #expect(rig.received(0).tag == 0)
    #expect(rig.receivedBytes(0, 118) == frame)
  }

  @Test func `VME may change while the queue runs`() throws {
    let rig = try EngineRig()
    rig.startReceive()
    let frame = TestFrames.ethernet(tag: 5, [UInt8](repeating: 7, count: 100))
    rig.receive(frame)
    rig.set(0x1028, 1 << 25 | 1 << 30)
    rig.receive(frame)
    #expect((0..<2).map { rig.received($0).length } == [118, 114])
  }

  @Test func `the headers behind a tag are checked`() throws {
    let rig = try EngineRig()
    rig.startReceive(control: 1 << 30)
    let tcp = TestFrames.tcp(TestFrames.v4a, TestFrames.v4b, [1, 2, 3])
    let ip = TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 6, tcp)
    rig.receive(TestFrames.ethernet(tag: 5, type: 0x0800, ip))
    #expect(rig.received(0).packetType == 0x110)
    #expect(rig.received(0).status == 0x6B)
  }

  @Test func `VLNCTRL says what a tag looks like`() throws {
    let rig = try EngineRig()
    rig.set(0x5088, 0x88A8)
    rig.startReceive(control: 1 << 30)
    let frame = TestFrames.ethernet(tag: 5, [UInt8](repeating: 7, count: 100))
    var other = frame
    other.replaceSubrange(12..<14, with: [0x88, 0xA8])
    rig.receive(frame, other)
    #expect((0..<2).map { rig.received($0).length } == [118, 114])
  }

  @Test func `VLE inserts the tag of a legacy descriptor`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    let payload = [UInt8](repeating: 7, count: 100)
    rig.post(TestFrames.ethernet(payload), Command.legacy | Command.vle | 0xA005 << 48)
    rig.transmit()
    #expect(rig.wire.outgoing == [TestFrames.ethernet(tag: 0xA005, payload)])
  }

  @Test func `VLE inserts the tag of an advanced descriptor's context`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    let payload = [UInt8](repeating: 7, count: 100)
    // As Linux asks for a tag without a checksum (observed, 6.3).
    rig.postRaw(0x0000_0000_0005_1C00, 0x2020_0000)
    // And the second context.
    rig.postRaw(0x0000_0000_0006_1C00, 1 << 36 | 0x2020_0000)
    rig.post(TestFrames.ethernet(payload), Command.advanced | Command.vle)
    rig.post(TestFrames.ethernet(payload), Command.advanced | Command.vle | 1 << 36)
    rig.post(TestFrames.ethernet(payload), Command.advanced)
    rig.transmit()
    #expect(
      rig.wire.outgoing == [
        TestFrames.ethernet(tag: 5, payload), TestFrames.ethernet(tag: 6, payload),
        TestFrames.ethernet(payload),
      ])
  }

  @Test func `a short frame is padded behind its tag`() throws {
    let rig = try EngineRig()
    rig.startTransmit()
    rig.post(TestFrames.plain(42), Command.legacy | Command.vle | 9 << 48)
    rig.transmit()
    let plain = TestFrames.plain(42)
    #expect(
      rig.wire.outgoing == [
        plain[0..<12] + [0x81, 0, 0, 9] + plain[12...] + [UInt8](repeating: 0, count: 14)
      ])
  }
}
