import Testing

@testable import Emulation

@Suite struct ReceiveEngineTests {
  @Test func `an advanced descriptor gets length, type and status`() throws {
    let rig = try EngineRig()
    rig.startReceive()
    let frame = TestFrames.plain(60)
    #expect(rig.receive(frame) == 1)
    let found = rig.received(0)
    #expect(found.status == 0x3)
    #expect(found.length == 60)
    #expect(found.low == 0)
    #expect(rig.receivedBytes(0, 60) == frame)
    #expect(rig.receivedBytes(0, 61).last == 0xEE, "not a byte beyond the frame")
    #expect(rig.receivedHead() == 1)
  }

  @Test func `a legacy descriptor keeps its address`() throws {
    let rig = try EngineRig()
    rig.startReceive(legacy: true)
    let frame = TestFrames.plain(100)
    rig.receive(frame)
    let found = rig.received(0)
    #expect(found.low == EngineRig.receiveBuffer(0, 0))
    #expect(found.legacyLength == 100)
    #expect(found.legacyStatus == 3)
    #expect(found.legacyErrors == 0)
    #expect(found.high >> 16 & 0xFFFF == 0)
    #expect(rig.receivedBytes(0, 100) == frame)
  }

  @Test(arguments: [false, true])
  func `the ring wraps and every frame arrives in order`(legacy: Bool) throws {
    let rig = try EngineRig()
    rig.startReceive(count: 16, legacy: legacy)
    var tail = 15
    for i in 0..<1000 {
      let frame = TestFrames.plain(60 + i % 1400, seed: UInt8(truncatingIfNeeded: i))
      #expect(rig.receive(frame) == 1)
      let found = rig.received(i % 16)
      #expect((legacy ? found.legacyLength : found.length) == frame.count)
      #expect(rig.receivedBytes(i % 16, frame.count) == frame)
      #expect(rig.receivedHead() == (i + 1) % 16)
      rig.rearm(0, i % 16)
      tail = (tail + 1) % 16
      rig.receiver.setTail(queue: 0, UInt32(tail))
    }
  }

  @Test func `a frame waits on the wire for a descriptor`() throws {
    let rig = try EngineRig()
    rig.startReceive(count: 8)
    rig.wire.incoming = (0..<20).map { TestFrames.plain(60, seed: $0) }
    #expect(rig.receiver.poll(rig.wire, limit: 64) == 7)
    #expect(rig.receiver.poll(rig.wire, limit: 64) == 0)
    #expect(rig.wire.incoming.count == 13)
    #expect(rig.received(7).isDone == false, "the last descriptor is the driver's")
    rig.rearm(0, 0)
    rig.receiver.setTail(queue: 0, 0)
    #expect(rig.receiver.poll(rig.wire, limit: 64) == 1)
    #expect(rig.receivedBytes(7, 60) == TestFrames.plain(60, seed: 7))
    #expect(rig.take(0x3FA0) == 0)
  }

  @Test func `a wire that does not wait loses frames to MPC`() throws {
    let rig = try EngineRig()
    rig.wire.waitsForDescriptors = false
    rig.startReceive(count: 8)
    rig.wire.incoming = (0..<20).map { TestFrames.plain(60, seed: $0) }
    #expect(rig.receiver.poll(rig.wire, limit: 64) == 20)
    #expect(rig.take(0x3FA0) == 13, "MPC")
    #expect(rig.take(0x3FC0) == 13, "RNBC")
    #expect(rig.take(0x1430) == 0, "QPRDC")
    #expect(rig.take(0x4074) == 20, "GPRC counts missed frames as good")
    #expect(rig.take(0x1030) == 7, "QPRC")
    #expect(rig.take(0x40D0) == 20, "TPR")
  }

  @Test func `a queue with DROP_EN loses frames to the QPRDC of its counter set`() throws {
    let rig = try EngineRig()
    rig.wire.waitsForDescriptors = false
    rig.set(0x2300, 5)
    rig.startReceive(count: 8, flags: 1 << 28)
    rig.wire.incoming = (0..<10).map { TestFrames.plain(60, seed: $0) }
    #expect(rig.receiver.poll(rig.wire, limit: 64) == 10)
    #expect(rig.take(0x1430 + 0x40 * 5) == 3)
    #expect(rig.take(0x3FA0) == 0)
    #expect(rig.take(0x4074) == 7)
  }

  @Test(arguments: [false, true])
  func `a frame larger than a buffer spans descriptors`(legacy: Bool) throws {
    let rig = try EngineRig()
    rig.set(0x4240, 0x0801_2C0F)
    rig.set(0x4268, 9018 << 16)
    rig.startReceive(count: 8, legacy: legacy, kilobytes: 3)
    let payload = TestFrames.tcp(
      TestFrames.v4a, TestFrames.v4b, (0..<8000).map { UInt8(truncatingIfNeeded: $0) })
    let frame = TestFrames.ethernet(
      type: 0x0800, TestFrames.ipv4(TestFrames.v4a, TestFrames.v4b, 6, payload))
    #expect(rig.receive(frame) == 1)
    var stored: [UInt8] = []
    for i in 0..<3 {
      let found = rig.received(i)
      let length = legacy ? found.legacyLength : found.length
      #expect(length == (i < 2 ? 3072 : frame.count - 6144))
      stored += rig.receivedBytes(i, length)
      if legacy {
        #expect(found.legacyStatus == (i < 2 ? 0x01 : 0x63))
      } else {
        #expect(found.status == (i < 2 ? 0x01 : 0x63))
        #expect(found.packetType == 0x110)
      }
    }
    #expect(stored == frame)
    #expect(rig.receivedHead() == 3)
  }

  @Test func `a frame waits until there are descriptors for all of it`() throws {
    let rig = try EngineRig()
    rig.startReceive(count: 8, kilobytes: 1)
    rig.receiver.setTail(queue: 0, 1)
    #expect(rig.receive(TestFrames.plain(1500)) == 0)
    #expect(rig.received(0).isDone == false)
    rig.receiver.setTail(queue: 0, 2)
    #expect(rig.receiver.poll(rig.wire, limit: 1) == 1)
    #expect(rig.received(1).isLast)
  }

  @Test func `a frame that no ring of this size can hold does not block the wire`() throws {
    let rig = try EngineRig()
    rig.set(0x4240, 0x0801_2C0F)
    rig.set(0x4268, 9018 << 16)
    rig.startReceive(count: 8, kilobytes: 1)
    #expect(rig.receive(TestFrames.plain(8000), TestFrames.plain(60)) == 2)
    #expect(rig.received(0).length == 60)
    #expect(rig.take(0x3FA0) == 1)
  }

  @Test func `frames of a wrong length are counted and dropped`() throws {
    let rig = try EngineRig()
    rig.startReceive()
    rig.receive(
      TestFrames.plain(59), TestFrames.plain(60), TestFrames.plain(1514), TestFrames.plain(1515),
      TestFrames.plain(1518))
    #expect(rig.receivedHead() == 2)
    #expect(rig.received(1).length == 1514)
    #expect(rig.take(0x40A4) == 1, "RUC")
    #expect(rig.take(0x40AC) == 2, "ROC")
    #expect(rig.take(0x4074) == 2, "GPRC")
    #expect(rig.take(0x40D0) == 5, "TPR")
  }

  @Test func `a VLAN tag makes the longest frame four bytes longer`() throws {
    let rig = try EngineRig()
    rig.startReceive()
    let tagged = TestFrames.ethernet(tag: 5, [UInt8](repeating: 1, count: 1500))
    #expect(tagged.count == 1518)
    rig.receive(tagged, tagged + [0])
    #expect(rig.received(0).length == 1518)
    #expect(rig.take(0x40AC) == 1)
  }

  @Test func `without JUMBOEN the limit is 1518, whatever MAXFRS says`() throws {
    let rig = try EngineRig()
    rig.set(0x4268, 9018 << 16)
    rig.startReceive()
    rig.receive(TestFrames.plain(1515))
    #expect(rig.take(0x40AC) == 1)
    rig.set(0x4240, 0x0801_2C0F)
    rig.receive(TestFrames.plain(1515))
    #expect(rig.received(0).length == 1515)
  }

  @Test func `SBP stores runts as bad frames`() throws {
    let rig = try EngineRig()
    rig.set(0x5080, 1 << 10 | 1 << 1)
    rig.startReceive()
    rig.receive(TestFrames.plain(20), [1, 2, 3], [], TestFrames.plain(60))
    #expect(rig.received(0).status == 0x2000_0003)
    #expect(rig.received(0).length == 20)
    #expect(rig.receivedHead() == 2)
    #expect(rig.take(0x40A4) == 3, "RUC")
    #expect(rig.take(0x4074) == 1, "GPRC")
    #expect(rig.take(0x4088) == 60, "GORCL")
    #expect(rig.take(0x40D0) == 4, "TPR")
    #expect(rig.take(0x40C0) == 24 + 7 + 4 + 64, "TORL")
  }

  @Test func `the FCS is stored when it is not stripped`() throws {
    let rig = try EngineRig()
    rig.set(0x4240, 0x0801_2C09)
    rig.startReceive()
    let frame = TestFrames.plain(77)
    rig.receive(frame)
    #expect(rig.received(0).length == 81)
    #expect(rig.receivedBytes(0, 81) == frame + TestFrames.little(TestFrames.crc(frame)))
    #expect(rig.take(0x4088) == 81, "GORCL")
  }

  @Test func `nothing is received before RXCTRL.RXEN`() throws {
    let rig = try EngineRig()
    rig.set(0x3000, 0)
    rig.startReceive()
    #expect(rig.receive(TestFrames.plain(60)) == 0)
    #expect(rig.wire.incoming.count == 1)
    rig.wire.waitsForDescriptors = false
    #expect(rig.receiver.poll(rig.wire, limit: 64) == 1)
    #expect(rig.wire.incoming.isEmpty)
    #expect(rig.take(0x4074) == 0)
  }

  @Test func `a disabled queue keeps its descriptors`() throws {
    let rig = try EngineRig()
    rig.startReceive()
    rig.receiver.disable(queue: 0)
    #expect(rig.receive(TestFrames.plain(60)) == 0)
    #expect(rig.received(0).isDone == false)
  }

  @Test func `RDH may be written while the queue is enabled`() throws {
    let rig = try EngineRig()
    rig.startReceive()
    rig.receive(TestFrames.plain(60))
    rig.receiver.setHead(queue: 0, 5)
    rig.receive(TestFrames.plain(61))
    #expect(rig.received(5).length == 61)
    #expect(rig.receivedHead() == 6)
  }

  @Test(arguments: [(0, 0, 5), (16, 0, 16), (16, 16, 3), (16, 0, 0xFFFF), (16, 0xFFFF, 0)])
  func `a ring that makes no sense holds nothing`(count: Int, head: Int, tail: Int) throws {
    let rig = try EngineRig()
    rig.startReceive()
    rig.registers[0x1008] = UInt32(count * 16)
    rig.registers[0x1010] = UInt32(head)
    rig.registers[0x1018] = UInt32(tail)
    rig.receiver.enable(queue: 0)
    #expect(rig.receive(TestFrames.plain(60)) == 0)
    #expect(rig.dma.violations == 0)
  }

  @Test func `a poll stops at its limit`() throws {
    let rig = try EngineRig()
    rig.startReceive()
    rig.wire.incoming = (0..<9).map { TestFrames.plain(60, seed: $0) }
    #expect(rig.receiver.poll(rig.wire, limit: 4) == 4)
    #expect(rig.wire.incoming.count == 5)
  }

  @Test func `loopback frames reach the receiver, and the wire does not`() throws {
    let rig = try EngineRig()
    rig.set(0x4240, 0x0801_AC0B)
    rig.startReceive()
    rig.startTransmit()
    let frame = TestFrames.plain(200)
    rig.post(frame, Command.advanced | Command.rs)
    rig.transmit()
    #expect(rig.wire.outgoing.isEmpty)
    #expect(rig.receivedBytes(0, 200) == frame)
    #expect(rig.receive(TestFrames.plain(60)) == 0)
  }
}
