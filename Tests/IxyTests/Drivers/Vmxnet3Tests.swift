import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

/// The vmxnet3 driver over a model of its card: start and stop, frames, queues.
@Suite struct Vmxnet3Tests {
  // MARK: - Start

  @Test func `a card comes up with its address and a link`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    #expect(bench.device.driverName == "vmxnet3")
    #expect(bench.device.macAddress == MACAddress("52:54:00:12:34:56"))
    #expect(try bench.device.link() == Link(megabitsPerSecond: 10_000))
    #expect(bench.device.statistics() == Statistics())
    #expect(model.isBusMaster && !model.isActive)
    #expect(model.violations.isEmpty)
  }

  @Test func `the first queue starts the card`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model) { $0.transmitQueues = 2 }
    let queue = try bench.device.transmitQueue(1)
    #expect(model.isActive && model.transmitters.count == 2)
    #expect(model.violations.isEmpty)
    _ = consume queue
  }

  @Test func `a card without revision 1 is refused`() throws {
    let model = Vmxnet3Model()
    model.revisions = 0b1110
    let error = #expect(throws: DeviceError.self) { try DriverBench(model) }
    #expect("\(try #require(error))".contains("1110"))
  }

  @Test func `a card that was unplugged is gone`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    model.isGone = true
    #expect(throws: DeviceError.self) { try bench.device.link() }
    #expect(throws: DeviceError.self) { _ = try bench.device.transmitQueue(0) }
    #expect(bench.device.statistics() == Statistics())
    let error = #expect(throws: DeviceError.self) { try DriverBench(model) }
    #expect("\(try #require(error))".contains("all ones"))
  }

  @Test func `BARs that are too small are refused`() throws {
    let model = Vmxnet3Model()
    model.barSize = 2048
    #expect(throws: DeviceError.self) { try DriverBench(model) }
  }

  @Test func `a card that does not start is an error`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    model.refusesActivation = true
    let error = #expect(throws: DeviceError.self) {
      _ = try bench.device.receiveQueue(0, mempool: bench.pool)
    }
    #expect("\(try #require(error))".contains("activated"))
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test func `more than the card has is refused`() throws {
    #expect(throws: DeviceError.self) { try DriverBench(Vmxnet3Model()) { $0.receiveQueues = 9 } }
    #expect(throws: DeviceError.self) { try DriverBench(Vmxnet3Model()) { $0.mtu = 9001 } }
  }

  @Test func `a pulled cable is seen`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    model.isPlugged = false
    #expect(try !bench.device.link().isUp)
    (model.isPlugged, model.megabits) = (true, 0)
    #expect(try bench.device.link().isUp, "a link of unknown speed is one")
  }

  // MARK: - Frames

  @Test(arguments: [false, true]) func `frames of every length are sent as they are`(
    completesEach: Bool
  ) throws {
    let model = Vmxnet3Model()
    model.completesEach = completesEach
    let bench = try DriverBench(model)
    var queue = try bench.device.transmitQueue(0)
    let frames = (60...1518).map { testFrame($0, length: $0) }
    for frame in frames {
      #expect(try bench.send(frame, by: &queue))
      _ = model.step()
    }
    #expect(model.sent == frames)
    #expect(try queue.reclaim() == 0)
    #expect(model.violations.isEmpty)
    let statistics = bench.device.statistics()
    #expect(statistics.transmittedPackets == UInt64(frames.count))
    #expect(statistics.transmittedBytes == UInt64(frames.map(\.count).reduce(0, +)))
  }

  @Test func `frames of every length are received as they are`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 32)
    let frames = (60...1518).map { testFrame($0, length: $0) }
    var received: [[UInt8]] = []
    for start in stride(from: 0, to: frames.count, by: 50) {
      model.arriving = Array(frames[start..<min(start + 50, frames.count)])
      _ = model.step()
      while try queue.receive(into: &batch, max: 32) > 0 { received += batch.takeFrames() }
    }
    #expect(received == frames)
    #expect(model.violations.isEmpty)
    let statistics = bench.device.statistics()
    #expect(statistics.receivedPackets == UInt64(frames.count))
    #expect(statistics.receivedBytes == UInt64(frames.map(\.count).reduce(0, +)))
    #expect(statistics.receiveDropped == 0)
  }

  @Test func `jumbo frames pass both ways`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model) { $0.mtu = 9000 }
    var rx = try bench.device.receiveQueue(0, mempool: bench.pool)
    var tx = try bench.device.transmitQueue(0)
    var batch = PacketBatch(capacity: 32)
    let frames = [60, 1514, 1515, 4096, 8192, 9014, 9018].map { testFrame($0, length: $0) }
    model.arriving = frames
    _ = model.step()
    #expect(try rx.receive(into: &batch, max: 32) == frames.count)
    #expect(try tx.transmit(&batch) == frames.count)
    _ = model.step()
    #expect(model.sent == frames)
  }

  @Test(arguments: [false, true]) func `a ring wraps many times in order`(
    completesEach: Bool
  ) throws {
    let model = Vmxnet3Model()
    model.completesEach = completesEach
    let bench = try DriverBench(model)
    var rx = try bench.device.receiveQueue(0, mempool: bench.pool)
    var tx = try bench.device.transmitQueue(0)
    var batch = PacketBatch(capacity: 24)
    let frames = (0..<1000).map { testFrame($0) }
    for start in stride(from: 0, to: 1000, by: 25) {
      model.arriving = Array(frames[start..<start + 25])
      for _ in 0..<2 {
        _ = model.step()
        _ = try rx.receive(into: &batch, max: 24)
        _ = try tx.transmit(&batch)
      }
    }
    _ = model.step()
    #expect(model.sent == frames)
    #expect(model.violations.isEmpty)
  }

  @Test func `a full ring takes no more packets`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.transmitQueue(0)
    var batch = PacketBatch(capacity: 100)
    for i in 0..<100 { batch.append(try bench.packet(testFrame(i))) }
    #expect(try queue.transmit(&batch) == 63)
    #expect(try queue.transmit(&batch) == 0)
    #expect(try !bench.send(testFrame(100), by: &queue))
    #expect(try queue.reclaim() == 63)
    _ = model.step()
    #expect(try queue.reclaim() == 0)
    #expect(try queue.transmit(&batch) == 32)
    _ = model.step()
    #expect(model.sent == (0..<95).map { testFrame($0) })
  }

  @Test func `an empty mempool leaves frames in the ring`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model, buffers: 70)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    var rest = PacketBatch(capacity: 64)
    model.arriving = (0..<20).map { testFrame($0) }
    _ = model.step()
    #expect(try queue.receive(into: &batch, max: 64) == 6)
    #expect(try queue.receive(into: &rest, max: 64) == 0)
    #expect(batch.takeFrames() == (0..<6).map { testFrame($0) })
    #expect(try queue.receive(into: &rest, max: 64) == 6)
    #expect(rest.takeFrames() == (6..<12).map { testFrame($0) })
  }

  @Test func `frames that find no buffer are counted as dropped`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    do {
      let queue = try bench.device.receiveQueue(0, mempool: bench.pool)
      model.arriving = (0..<70).map { testFrame($0) }
      _ = model.step()
      // One descriptor is never given away.
      #expect(bench.device.statistics().receiveDropped == 7)
      _ = consume queue
    }
    #expect(bench.device.statistics().receiveDropped == 7)
    let again = try bench.device.receiveQueue(0, mempool: bench.pool)
    #expect(bench.device.statistics().receiveDropped == 7)
    _ = consume again
  }

  @Test func `the doorbell of new buffers is rung where the card asks for it`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    model.wantsReceiveDoorbell = true
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    #expect(model.receiveDoorbells == [0: 63])
    var batch = PacketBatch(capacity: 64)
    model.arriving = (0..<5).map { testFrame($0) }
    _ = model.step()
    #expect(try queue.receive(into: &batch, max: 64) == 5)
    #expect(model.receiveDoorbells == [0: 4])
  }

  // MARK: - Queues

  @Test func `a dropped queue gives all buffers back`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    for round in 0..<20 {
      do {
        var rx = try bench.device.receiveQueue(0, mempool: bench.pool)
        var tx = try bench.device.transmitQueue(0)
        var batch = PacketBatch(capacity: 8)
        model.arriving = (0..<5).map { testFrame(round + $0) }
        _ = model.step()
        #expect(try rx.receive(into: &batch, max: 8) == 5)
        #expect(try tx.transmit(&batch) == 5)
        _ = model.step()
      }
      #expect(bench.pool.available == bench.pool.capacity)
    }
    #expect(model.violations.isEmpty)
  }

  @Test func `a card opens and closes fifty times`() throws {
    let model = Vmxnet3Model()
    for round in 0..<50 {
      model.sent = []
      let bench = try DriverBench(model)
      do {
        var tx = try bench.device.transmitQueue(0)
        #expect(try bench.send(testFrame(round), by: &tx))
        _ = model.step()
      }
      #expect(model.sent == [testFrame(round)])
      #expect(bench.pool.available == bench.pool.capacity)
      bench.device.stop()
      #expect(!model.isBusMaster && !model.isActive && model.shared == 0)
    }
    #expect(model.dma.count == 0)
  }

  @Test func `a card that is stopped receives nothing`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    bench.device.stop()
    model.arriving = [testFrame(0)]
    #expect(model.step() == 0)
    var batch = PacketBatch(capacity: 8)
    #expect(try queue.receive(into: &batch, max: 8) == 0)
    #expect(throws: DeviceError.self) { _ = try bench.device.transmitQueue(0) }
  }

  @Test func `a transmit queue is dropped and taken again while the others go on`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var rx = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 8)
    var frames: [[UInt8]] = []
    for round in 0..<40 {
      var tx = try bench.device.transmitQueue(0)
      for i in 0..<7 {
        frames.append(testFrame(7 * round + i))
        #expect(try bench.send(testFrame(7 * round + i), by: &tx))
      }
      _ = model.step()
    }
    #expect(model.sent == frames)
    model.arriving = [testFrame(1)]
    _ = model.step()
    #expect(try rx.receive(into: &batch, max: 8) == 1)
    batch.removeAll()
    #expect(bench.pool.available == bench.pool.capacity - 64)
    #expect(model.violations.isEmpty)
  }

  @Test func `a receive queue that is dropped stops the card until all are`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    do {
      var tx = try bench.device.transmitQueue(0)
      #expect(try bench.send(testFrame(0), by: &tx))
      do { _ = try bench.device.receiveQueue(0, mempool: bench.pool) }
      #expect(!model.isActive)
      for _ in 0..<2 {
        let error = #expect(throws: DeviceError.self) { try bench.send(testFrame(1), by: &tx) }
        #expect("\(try #require(error))".contains("another queue was dropped"))
      }
      var batch = PacketBatch(capacity: 1)
      batch.append(try bench.packet(testFrame(2)))
      #expect(throws: DeviceError.self) { try tx.transmit(&batch) }
      #expect(batch.count == 1)
      #expect(throws: DeviceError.self) { try tx.reclaim() }
      let error = #expect(throws: DeviceError.self) {
        _ = try bench.device.receiveQueue(0, mempool: bench.pool)
      }
      #expect("\(try #require(error))".contains("Drop all others"))
    }
    #expect(bench.pool.available == bench.pool.capacity)
    var rx = try bench.device.receiveQueue(0, mempool: bench.pool)
    var tx = try bench.device.transmitQueue(0)
    #expect(try bench.send(testFrame(2), by: &tx))
    model.arriving = [testFrame(3)]
    _ = model.step()
    var batch = PacketBatch(capacity: 8)
    #expect(try rx.receive(into: &batch, max: 8) == 1)
    #expect(batch.takeFrames() == [testFrame(3)])
    #expect(model.sent == [testFrame(2)])
  }

  @Test func `what came before another queue was dropped is received`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model) { $0.receiveQueues = 2 }
    var first = try bench.device.receiveQueue(0, mempool: bench.pool)
    let second = try bench.device.receiveQueue(1, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    model.arriving = (0..<20).map { tcpFrame(flow: $0) }
    _ = model.step()
    _ = consume second
    #expect(try first.receive(into: &batch, max: 64) > 3)
    batch.removeAll()
    let error = #expect(throws: DeviceError.self) { try first.receive(into: &batch, max: 64) }
    #expect("\(try #require(error))".contains("Use queue 0"))
    bench.device.stop()
    #expect(throws: DeviceError.self) { try first.receive(into: &batch, max: 64) }
  }

  @Test func `the last queue to be dropped is nobody's error`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    for _ in 0..<3 {
      do { _ = try bench.device.receiveQueue(0, mempool: bench.pool) }
      var tx = try bench.device.transmitQueue(0)
      #expect(try bench.send(testFrame(0), by: &tx))
      _ = model.step()
      #expect(try tx.reclaim() == 0)
    }
    #expect(model.violations.isEmpty)
  }

  @Test func `each flow stays on one of several queues`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model) { $0.receiveQueues = 3 }
    var first = try bench.device.receiveQueue(0, mempool: bench.pool)
    var second = try bench.device.receiveQueue(1, mempool: bench.pool)
    var third = try bench.device.receiveQueue(2, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    var seen: [Set<[UInt8]>] = [[], [], []]
    for _ in 0..<3 {
      model.arriving = (0..<60).map { tcpFrame(flow: $0) }
      _ = model.step()
      for i in 0..<3 {
        switch i {
        case 0: _ = try first.receive(into: &batch, max: 64)
        case 1: _ = try second.receive(into: &batch, max: 64)
        default: _ = try third.receive(into: &batch, max: 64)
        }
        batch.forEach { packet in
          let input = Array(packet.frame[26..<38])
          #expect(packet.hash == toeplitz(input, key: ReceiveSideScaling.publishedKey))
        }
        seen[i].formUnion(batch.takeFrames())
      }
    }
    #expect(seen.allSatisfy { $0.count > 8 })
    #expect(seen.map(\.count).reduce(0, +) == 60)
    #expect(model.violations.isEmpty)
  }

  @Test func `queue 1 works alone`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model) { ($0.receiveQueues, $0.transmitQueues) = (2, 2) }
    var rx = try bench.device.receiveQueue(1, mempool: bench.pool)
    var tx = try bench.device.transmitQueue(1)
    var batch = PacketBatch(capacity: 64)
    model.arriving = (0..<50).map { tcpFrame(flow: $0) }
    _ = model.step()
    let count = try rx.receive(into: &batch, max: 64)
    #expect(count > 10 && count < 40)
    #expect(try tx.transmit(&batch) == count)
    _ = model.step()
    #expect(model.sent.count == count)
    #expect(bench.device.statistics().receiveDropped == UInt64(50 - count))
  }

  @Test func `a queue is taken once`() throws {
    let bench = try DriverBench(Vmxnet3Model())
    let queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    #expect(throws: DeviceError.self) {
      _ = try bench.device.receiveQueue(0, mempool: bench.pool)
    }
    #expect(throws: DeviceError.self) { _ = try bench.device.transmitQueue(1) }
    _ = consume queue
  }

  @Test func `a mempool that is too small is refused`() throws {
    let bench = try DriverBench(Vmxnet3Model(), buffers: 63)
    #expect(throws: DeviceError.self) {
      _ = try bench.device.receiveQueue(0, mempool: bench.pool)
    }
    let small = try Mempool(domain: bench.domain, buffers: 100, bufferSize: 1024)
    #expect(throws: DeviceError.self) { _ = try bench.device.receiveQueue(0, mempool: small) }
  }
}
