import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

private let kinds: [GigabitModel.Kind] = [.e1000e, .igb]

/// A card that lies in its descriptors: everything is counted, no buffer is lost, and work has an end.
@Suite struct GigabitHostileTests {
  /// Receives one frame about which the card lies, then an honest one.
  private func receive(
    _ kind: GigabitModel.Kind, lie: @escaping (inout UInt64) -> Void
  ) throws -> (frames: [[UInt8]], errors: UInt64) {
    let model = GigabitModel(kind)
    let bench = try DriverBench(model)
    var frames: [[UInt8]] = []
    do {
      var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
      var batch = PacketBatch(capacity: 8)
      model.lie = { _, high in lie(&high) }
      model.arriving = [testFrame(1)]
      _ = model.step()
      _ = try queue.receive(into: &batch, max: 8)
      model.lie = nil
      model.arriving = [testFrame(2)]
      _ = model.step()
      _ = try queue.receive(into: &batch, max: 8)
      frames = batch.takeFrames()
    }
    #expect(bench.pool.available == bench.pool.capacity)
    return (frames, bench.device.statistics().receiveErrors)
  }

  @Test(arguments: kinds, [0, 1, 13, 1519, 2049, 0xFFFF])
  func `a length that cannot be is an error`(kind: GigabitModel.Kind, length: UInt64) throws {
    let (frames, errors) = try receive(kind) { $0 = $0 & ~(0xFFFF << 32) | length << 32 }
    #expect(frames == [testFrame(2)])
    #expect(errors == 1)
  }

  @Test(arguments: kinds, [24, 25, 26, 28, 31])
  func `a frame with an error bit is dropped`(kind: GigabitModel.Kind, bit: UInt64) throws {
    let (frames, errors) = try receive(kind) { $0 |= 1 << bit }
    #expect(frames == [testFrame(2)])
    #expect(errors == 1)
  }

  @Test(arguments: kinds, [29, 30])
  func `a wrong checksum is the application's`(kind: GigabitModel.Kind, bit: UInt64) throws {
    let (frames, errors) = try receive(kind) { $0 |= 1 << bit }
    #expect(frames == [testFrame(1), testFrame(2)])
    #expect(errors == 0)
  }

  @Test(arguments: kinds) func `a frame of several descriptors is dropped whole`(
    kind: GigabitModel.Kind
  ) throws {
    // The second frame then ends the first.
    let (frames, errors) = try receive(kind) { $0 &= ~0b10 }
    #expect(frames.isEmpty)
    #expect(errors == 1)
  }

  @Test(arguments: kinds) func `descriptors of all ones end in errors`(
    kind: GigabitModel.Kind
  ) throws {
    let (frames, errors) = try receive(kind) { $0 = .max }
    #expect(frames == [testFrame(2)])
    #expect(errors == 1)
  }

  @Test(arguments: kinds) func `a frame that never ends does not keep the driver`(
    kind: GigabitModel.Kind
  ) throws {
    let model = GigabitModel(kind)
    let bench = try DriverBench(model)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    // Every descriptor is done at once, and no frame ends.
    let ring = model.receiveRing(0)
    for _ in 0..<10 {
      for i in 0..<64 { model.writeDescriptor(ring, i, 0, 0b01 | 60 << 32) }
      #expect(try queue.receive(into: &batch, max: 64) == 0)
    }
    #expect(bench.device.statistics().receiveErrors == 1)
    for i in 0..<64 { model.writeDescriptor(ring, i, 0, 0b11 | 60 << 32) }
    #expect(try queue.receive(into: &batch, max: 64) <= 64)
    batch.removeAll()
    _ = consume queue
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test(arguments: kinds) func `a ring that does not stop keeps its memory`(
    kind: GigabitModel.Kind
  ) throws {
    guard kind == .igb else { return }
    let model = GigabitModel(kind)
    let bench = try DriverBench(model)
    let queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    model.isGone = true
    _ = consume queue
    // The buffers stay with the device, and the pool does not hand them out again.
    #expect(bench.pool.available == bench.pool.capacity - 64)
  }

  @Test(arguments: kinds) func `a transmit ring reports nothing that is not done`(
    kind: GigabitModel.Kind
  ) throws {
    let model = GigabitModel(kind)
    let bench = try DriverBench(model)
    var queue = try bench.device.transmitQueue(0)
    var batch = PacketBatch(capacity: 64)
    for i in 0..<40 { batch.append(try bench.packet(testFrame(i))) }
    #expect(try queue.transmit(&batch) == 40)
    // Heads outside the ring, and descriptors that were never sent marked as done.
    model[model.transmitRing(0).base + 0x10] = .max
    for i in 0..<64 { model.writeDescriptor(model.transmitRing(0), i, .max, .max) }
    #expect(try queue.reclaim() <= 64)
    #expect(bench.pool.available == bench.pool.capacity - 8)
    _ = consume queue
    #expect(bench.pool.available == bench.pool.capacity)
  }
}
