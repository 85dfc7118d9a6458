import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

/// A vmxnet3 that lies: typed errors and counted drops, no buffer is lost, and work has an end.
@Suite struct Vmxnet3HostileTests {
  private typealias Lie = (inout UInt64, inout UInt64) -> Void

  /// Receives one frame about which the card lies, then an honest one.
  private func receive(_ lie: @escaping Lie) throws -> (frames: [[UInt8]], errors: UInt64) {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var frames: [[UInt8]] = []
    do {
      var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
      var batch = PacketBatch(capacity: 8)
      model.receiveLie = lie
      model.arriving = [testFrame(1)]
      _ = model.step()
      _ = try queue.receive(into: &batch, max: 8)
      model.receiveLie = nil
      model.arriving = [testFrame(2)]
      _ = model.step()
      _ = try queue.receive(into: &batch, max: 8)
      frames = batch.takeFrames()
    }
    #expect(bench.pool.available == bench.pool.capacity)
    return (frames, bench.device.statistics().receiveErrors)
  }

  @Test(arguments: [0, 1, 13, 1519, 2049, 0x3FFF])
  func `a length that cannot be is an error`(length: UInt64) throws {
    let (frames, errors) = try receive { $1 = $1 & ~0x3FFF | length }
    #expect(frames == [testFrame(2)])
    #expect(errors == 1)
  }

  @Test func `a frame that the card marks as damaged is dropped`() throws {
    let (frames, errors) = try receive { $1 |= 1 << 14 }
    #expect(frames == [testFrame(2)])
    #expect(errors == 1)
  }

  @Test(arguments: [0x8000, 0x4000, 0])
  func `a part of a frame is dropped, the next frame is not`(marks: UInt64) throws {
    let (frames, errors) = try receive { low, _ in low = low & ~0xC000 | marks }
    #expect(frames == [testFrame(2)])
    #expect(errors == 1)
  }

  @Test func `a frame of several parts is one error`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 8)
    var part: UInt64 = 0
    model.receiveLie = { low, _ in
      part += 1
      low = low & ~0xC000 | (part == 1 ? 0x8000 : part == 3 ? 0x4000 : 0)
    }
    model.arriving = (0..<3).map { testFrame($0) }
    _ = model.step()
    #expect(try queue.receive(into: &batch, max: 8) == 0)
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test func `a part of a frame behind a whole one is an error of its own`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 8)
    var part: UInt64 = 0
    // A beginning, a whole frame, and the end of nothing.
    model.receiveLie = { low, _ in
      part += 1
      low = low & ~0xC000 | [0x8000, 0xC000, 0x4000][Int(part) - 1]
    }
    model.arriving = (0..<3).map { testFrame($0) }
    _ = model.step()
    #expect(try queue.receive(into: &batch, max: 8) == 1)
    #expect(batch.takeFrames() == [testFrame(1)])
    #expect(bench.device.statistics().receiveErrors == 2)
  }

  @Test(arguments: 0..<70) func `a bad frame at any place does not disturb the others`(
    place: Int
  ) throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 32)
    var (number, received): (Int, [[UInt8]]) = (0, [])
    model.receiveLie = { _, high in
      if number % 70 == place { high |= 1 << 14 }
      number += 1
    }
    for round in 0..<20 {
      model.arriving = (0..<10).map { testFrame(10 * round + $0) }
      _ = model.step()
      while try queue.receive(into: &batch, max: 32) > 0 { received += batch.takeFrames() }
    }
    #expect(received == (0..<200).filter { $0 % 70 != place }.map { testFrame($0) })
    #expect(model.violations.isEmpty)
    #expect(bench.device.statistics().receiveDropped == 0)
  }

  @Test(arguments: [1, 63, 64, 4095, 1 << 16, 2 << 16, 1023 << 16])
  func `a descriptor out of its turn breaks the ring`(change: UInt64) throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    do {
      var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
      var batch = PacketBatch(capacity: 8)
      model.arriving = [testFrame(1)]
      _ = model.step()
      model.receiveLie = { low, _ in low ^= change }
      model.arriving = [testFrame(2)]
      _ = model.step()
      // What came before is good.
      #expect(try queue.receive(into: &batch, max: 8) == 1)
      #expect(batch.takeFrames() == [testFrame(1)])
      model.receiveLie = nil
      model.arriving = [testFrame(3)]
      _ = model.step()
      for _ in 0..<3 {
        let error = #expect(throws: DeviceError.self) { try queue.receive(into: &batch, max: 8) }
        #expect("\(try #require(error))".contains("not its turn"))
      }
    }
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test func `completions of all ones break the ring`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 8)
    model.receiveLie = { ($0, $1) = (.max, .max) }
    model.arriving = [testFrame(1)]
    _ = model.step()
    #expect(throws: DeviceError.self) { try queue.receive(into: &batch, max: 8) }
  }

  @Test func `bad frames as fast as they are looked at do not keep the driver`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    // Completions for one lap more than there are buffers, all of them bad.
    for i in 0..<128 { model.complete(0, 0xC000 | UInt64(i & 63), 0) }
    #expect(try queue.receive(into: &batch, max: 64) == 0)
    #expect(bench.device.statistics().receiveErrors == 64)
    #expect(try queue.receive(into: &batch, max: 64) == 0)
    #expect(bench.device.statistics().receiveErrors == 128)
    _ = consume queue
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test(arguments: [40, 63, 64, 4095])
  func `a frame that was never given is not reported as sent`(index: UInt64) throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    do {
      var queue = try bench.device.transmitQueue(0)
      var batch = PacketBatch(capacity: 64)
      for i in 0..<40 { batch.append(try bench.packet(testFrame(i))) }
      #expect(try queue.transmit(&batch) == 40)
      model.transmitLie = { $0 = index }
      _ = model.step()
      for _ in 0..<3 { #expect(throws: DeviceError.self) { try queue.reclaim() } }
      #expect(throws: DeviceError.self) { try queue.transmit(&batch) }
      #expect(bench.pool.available == bench.pool.capacity - 40)
    }
    // The card was stopped for it.
    #expect(!model.isActive)
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test func `a card that does not send is stopped when its queue is dropped`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    do {
      var queue = try bench.device.transmitQueue(0)
      #expect(try bench.send(testFrame(0), by: &queue))
    }
    #expect(!model.isActive)
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test(arguments: [false, true])
  func `a card that does not become quiet keeps its memory`(isGone: Bool) throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    let queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    (model.refusesToBeQuiet, model.isGone) = (true, isGone)
    _ = consume queue
    // The buffers stay with the device, and the pool does not hand them out again.
    #expect(bench.pool.available == bench.pool.capacity - 64)
    #expect(throws: DeviceError.self) { _ = try bench.device.transmitQueue(0) }
  }

  @Test func `a packet without a byte does not send what is behind its buffer`() throws {
    let model = Vmxnet3Model()
    let bench = try DriverBench(model)
    var queue = try bench.device.transmitQueue(0)
    guard let packet = bench.pool.packet(length: 0) else { throw BenchError.poolIsEmpty }
    if let back = try queue.transmit(packet) {
      _ = consume back
      Issue.record("the ring was full")
    }
    _ = model.step()
    #expect(model.sent.map(\.count) == [1])
  }
}
