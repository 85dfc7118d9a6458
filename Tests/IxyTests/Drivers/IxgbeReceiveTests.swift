import Emulation
import Testing

@testable import Ixy

@Suite struct IxgbeReceiveTests {
  @Test func `frames arrive byte for byte and in order`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    let sizes = [60, 61, 64, 128, 1000, 1514, 1518]
    // Many times around the ring.
    for round in 0..<100 {
      let frames = sizes.map { frame(round, size: $0) }
      bench.wire.incoming = frames
      bench.settle()
      queue.receive(into: &batch)
      #expect(batch.takeBytes() == frames)
    }
    #expect(bench.device.statistics().receivedPackets == 700)
    #expect(
      bench.device.statistics().receivedBytes == 100 * UInt64(sizes.reduce(0, +)))
  }

  @Test func `a batch takes no more than its room`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 10)
    bench.wire.incoming = (0..<25).map { frame($0) }
    bench.settle()
    let counts = [queue.receive(into: &batch), queue.receive(into: &batch)]
    #expect(counts == [10, 0])
    batch.removeAll()
    #expect(queue.receive(into: &batch, max: 3) == 3)
  }

  @Test func `an empty mempool leaves frames in the ring`() throws {
    let bench = try IxgbeTestBench(buffers: 70)
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    bench.wire.incoming = (0..<20).map { frame($0) }
    bench.settle()
    #expect(queue.receive(into: &batch) == 6)
    #expect(bench.pool.available == 0)
    batch.removeAll()
    #expect(queue.receive(into: &batch) == 6)
    batch.removeAll()
    var rest = 0
    while true {
      let count = queue.receive(into: &batch)
      if count == 0 { break }
      rest += count
      batch.removeAll()
    }
    #expect(rest == 8)
  }

  @Test func `a full ring loses nothing from a wire that waits`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    let frames = (0..<500).map { frame($0, size: 60 + $0 % 100) }
    bench.wire.incoming = frames
    var received: [[UInt8]] = []
    for _ in 0..<100 {
      bench.settle()
      queue.receive(into: &batch)
      received += batch.takeBytes()
    }
    #expect(received == frames)
    #expect(bench.device.statistics().receiveDropped == 0)
  }

  @Test func `a full ring drops what does not wait, counted`() throws {
    let bench = try IxgbeTestBench()
    bench.wire.waitsForDescriptors = false
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    bench.wire.incoming = (0..<100).map { frame($0) }
    bench.settle()
    queue.receive(into: &batch)
    // 64 descriptors, one of which stays free.
    #expect(batch.count == 63)
    #expect(bench.device.statistics().receiveDropped == 37)
    #expect(bench.device.statistics().receivedPackets == 63)
  }

  @Test func `a frame over the MTU and 18 bytes is an error`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    bench.wire.incoming = [frame(1, size: 1518), frame(2, size: 1519), frame(3)]
    bench.settle()
    queue.receive(into: &batch)
    #expect(batch.takeBytes() == [frame(1, size: 1518), frame(3)])
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test(arguments: [1500, 2030, 2031, 4000, 9000, 9582])
  func `the longest frame of an MTU passes whole`(mtu: Int) throws {
    let bench = try IxgbeTestBench(buffers: 100) { $0.mtu = mtu }
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var transmitter = try bench.device.takeTransmitQueue(0)
    var batch = PacketBatch(capacity: 64)
    let frames = [frame(1, size: mtu + 18), frame(2, size: mtu + 19), frame(3, size: 60)]
    bench.wire.incoming = frames
    bench.settle()
    queue.receive(into: &batch)
    #expect(batch.count == 2)
    transmitter.transmit(&batch)
    bench.settle()
    #expect(bench.wire.outgoing == [frames[0], frames[2]])
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test func `only frames for this card pass unless it is promiscuous`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    let mine = bench.device.macAddress
    let other = MACAddress(bits: mine.bits ^ 1 << 32)
    #expect("\(mine)" == "02:1b:21:00:00:01")
    let frames = [frame(1, to: mine), frame(2, to: other), frame(3)]
    for (isPromiscuous, expected) in [(false, [0, 2]), (true, [0, 1, 2]), (false, [0, 2])] {
      bench.device.setPromiscuous(isPromiscuous)
      bench.wire.incoming = frames
      bench.settle()
      queue.receive(into: &batch)
      #expect(batch.takeBytes() == expected.map { frames[$0] })
    }
  }

  @Test func `a queue that is dropped gives its buffers back, and can be taken again`() throws {
    let bench = try IxgbeTestBench()
    for round in 0..<3 {
      do {
        var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
        var batch = PacketBatch(capacity: 64)
        bench.wire.incoming = [frame(round)]
        bench.settle()
        queue.receive(into: &batch)
        #expect(batch.takeBytes() == [frame(round)])
      }
      #expect(bench.pool.available == bench.pool.capacity)
    }
    #expect(bench.device.statistics().receivedPackets == 3)
  }

  @Test func `each of several queues alone receives`() throws {
    let bench = try IxgbeTestBench { $0.receiveQueues = 4 }
    for id in [3, 1, 0, 2] {
      // Redirect everything there: all entries of RETA, with RSS on.
      for i in 0..<32 {
        bench.device.bar[Register<UInt32>(at: 0x05C00 + 4 * i)] = UInt32(id) * 0x0101_0101
      }
      bench.device.bar[Register<UInt32>(at: 0x05818)] = 0x0033_0001
      var queue = try bench.device.takeReceiveQueue(id, mempool: bench.pool)
      var batch = PacketBatch(capacity: 64)
      let frames = [udpFrame(1), udpFrame(2)]
      bench.wire.incoming = frames
      bench.settle()
      queue.receive(into: &batch)
      #expect(batch.takeBytes() == frames)
    }
  }

  /// An IPv4 UDP frame.
  private func udpFrame(_ number: UInt8) -> [UInt8] {
    var bytes = frame(Int(number))
    bytes.replaceSubrange(12..<24, with: [8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17])
    return bytes
  }
}
