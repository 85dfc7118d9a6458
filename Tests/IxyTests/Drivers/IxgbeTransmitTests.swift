import Emulation
import Testing

@testable import Ixy

@Suite struct IxgbeTransmitTests {
  @Test func `packets leave byte for byte and in order`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeTransmitQueue(0)
    var expected: [[UInt8]] = []
    var batch = PacketBatch(capacity: 32)
    for round in 0..<50 {
      for i in 0..<32 {
        let bytes = frame(round, size: 60 + 37 * i)
        expected.append(bytes)
        batch.append(try packet(bytes, bench.pool))
      }
      #expect(queue.transmit(&batch) == 32)
      bench.settle()
    }
    #expect(bench.wire.outgoing == expected)
    #expect(bench.device.statistics().transmittedPackets == 1600)
  }

  @Test func `a frame under 60 bytes is padded`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeTransmitQueue(0)
    let rest = queue.transmit(try packet(frame(1, size: 20), bench.pool))
    let isSent = rest == nil
    #expect(isSent)
    bench.settle()
    #expect(bench.wire.outgoing == [frame(1, size: 20) + [UInt8](repeating: 0, count: 40)])
  }

  @Test func `a full ring takes what fits and leaves the rest in the batch`() throws {
    let bench = try IxgbeTestBench()
    bench.wire.canSend = false
    var queue = try bench.device.takeTransmitQueue(0)
    var batch = PacketBatch(capacity: 100)
    for i in 0..<100 { batch.append(try packet(frame(i), bench.pool)) }
    #expect(queue.transmit(&batch) == 63)
    #expect(batch.count == 37)
    let rest = queue.transmit(try packet(frame(1), bench.pool))
    let isBack = rest != nil
    #expect(isBack)
    bench.wire.canSend = true
    bench.settle()
    #expect(queue.transmit(&batch) == 32)
    bench.settle()
    #expect(queue.transmit(&batch) == 5)
    bench.settle()
    #expect(bench.wire.outgoing == (0..<100).map { frame($0) })
  }

  @Test func `packets of several pools go home`() throws {
    let bench = try IxgbeTestBench()
    let other = try Mempool(domain: bench.domain, buffers: 100)
    do {
      var queue = try bench.device.takeTransmitQueue(0)
      for i in 0..<300 {
        let rest = queue.transmit(try packet(frame(i), i % 3 == 0 ? other : bench.pool))
        let isSent = rest == nil
        #expect(isSent)
        bench.settle()
      }
    }
    #expect(other.available == 100)
    #expect(bench.pool.available == bench.pool.capacity)
    #expect(bench.wire.outgoing.count == 300)
  }

  @Test func `reclaim says when all is sent`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeTransmitQueue(0)
    for i in 0..<5 { _ = queue.transmit(try packet(frame(i), bench.pool)) }
    #expect(queue.reclaim() == 5)
    bench.settle()
    #expect(queue.reclaim() == 0)
  }

  @Test func `queue 3 alone sends`() throws {
    let bench = try IxgbeTestBench { $0.transmitQueues = 4 }
    var queue = try bench.device.takeTransmitQueue(3)
    _ = queue.transmit(try packet(frame(7), bench.pool))
    bench.settle()
    #expect(bench.wire.outgoing == [frame(7)])
  }

  @Test func `a fused forward sends, drops and counts`() throws {
    let left = try IxgbeTestBench()
    // One domain for both: the right card must read the left one's packets.
    let right = try IxgbeTestBench(domain: left.domain)
    do {
      var receiver = try left.device.takeReceiveQueue(0, mempool: left.pool)
      var transmitter = try right.device.takeTransmitQueue(0)
      for round in 0..<100 {
        left.wire.incoming = (0..<30).map { frame(30 * round + $0) }
        left.settle()
        var seen = 0
        let count = receiver.forward(to: &transmitter, max: 32) { packet in
          seen += 1
          packet[20] = 0xEE
          return seen % 3 == 0 ? .drop : .send
        }
        #expect(count == 30)
        right.settle()
      }
    }
    #expect(right.wire.outgoing.count == 2000)
    #expect(right.wire.outgoing.allSatisfy { $0[20] == 0xEE })
    #expect(left.pool.available == left.pool.capacity)
    #expect(right.device.statistics().transmittedPackets == 2000)
  }

  @Test func `a fused forward of one sends, drops and counts`() throws {
    let left = try IxgbeTestBench()
    let right = try IxgbeTestBench(domain: left.domain)
    do {
      var receiver = try left.device.takeReceiveQueue(0, mempool: left.pool)
      var transmitter = try right.device.takeTransmitQueue(0)
      var seen = 0
      for round in 0..<100 {
        left.wire.incoming = (0..<30).map { frame(30 * round + $0) }
        left.settle()
        var looks = 0
        while receiver.forwardOne(
          to: &transmitter,
          { packet in
            seen += 1
            packet[20] = 0xEE
            return seen % 3 == 0 ? .drop : .send
          })
        { looks += 1 }
        #expect(looks == 30)
        right.settle()
      }
    }
    #expect(right.wire.outgoing.count == 2000)
    #expect(right.wire.outgoing.allSatisfy { $0[20] == 0xEE })
    #expect(left.pool.available == left.pool.capacity)
    #expect(left.device.statistics().receivedPackets == 3000)
    #expect(right.device.statistics().transmittedPackets == 2000)
  }

  @Test(arguments: [(2048, 63), (70, 6)])
  func `a fused forward of one waits for room and for buffers`(buffers: Int, expected: Int) throws {
    let left = try IxgbeTestBench(buffers: buffers)
    let right = try IxgbeTestBench(domain: left.domain)
    var receiver = try left.device.takeReceiveQueue(0, mempool: left.pool)
    var transmitter = try right.device.takeTransmitQueue(0)
    right.wire.canSend = false
    left.wire.incoming = (0..<100).map { frame($0) }
    var moved = 0
    for _ in 0..<200 {
      left.settle()
      if receiver.forwardOne(to: &transmitter, { _ in .send }) { moved += 1 }
    }
    #expect(moved == expected)
    right.wire.canSend = true
    right.settle()
    #expect(right.wire.outgoing == (0..<expected).map { frame($0) })
  }

  private func packet(_ bytes: [UInt8], _ pool: Mempool) throws -> Packet {
    guard var packet = pool.packet(length: bytes.count) else { throw NoPacket() }
    for (i, byte) in bytes.enumerated() { packet[i] = byte }
    return packet
  }

  private struct NoPacket: Error {}
}
