import CIxy
import Emulation
import Glibc
import Synchronization
import Testing

@testable import DriverModels
@testable import Ixy

/// What a card can do to the ixgbe driver: its descriptors are input.
@Suite struct IxgbeHostileTests {
  private let bench: IxgbeTestBench

  init() throws { bench = try IxgbeTestBench() }

  /// Where descriptor `i` of ring 0 is in the driver's memory.
  private func descriptor(_ i: Int, transmit: Bool = false) throws -> UnsafeMutableRawPointer {
    let ring = transmit ? 0x6000 : 0x1000
    let iova =
      bench.model.read(bar: 0, ring, width: 4) | bench.model.read(bar: 0, ring + 4, width: 4) << 32
    return try #require(
      bench.model.dma.pointer(to: iova + UInt64(16 * i), count: 16, forWriting: true))
  }

  /// Writes the second half of a descriptor, and then a good one after it; returns the frames received.
  private func receive(_ word: UInt64) throws -> [Int] {
    var lengths: [Int] = []
    do {
      var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
      var batch = PacketBatch(capacity: 8)
      try descriptor(0).storeBytes(of: word, toByteOffset: 8, as: UInt64.self)
      try descriptor(1).storeBytes(of: 0b11 | 77 << 32, toByteOffset: 8, as: UInt64.self)
      queue.receive(into: &batch)
      batch.forEach { lengths.append($0.count) }
    }
    #expect(bench.pool.available == bench.pool.capacity, "a buffer is lost")
    return lengths
  }

  @Test(arguments: [0, 1, 13, 2049, 0x7FFF, 0xFFFF] as [UInt64])
  func `a receive length larger than the buffer or shorter than a header is not believed`(
    length: UInt64
  ) throws {
    #expect(try receive(0b11 | length << 32) == [77])
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test func `a frame with a receive error bit is dropped and counted`() throws {
    #expect(try receive(0b11 | 60 << 32 | 1 << 29) == [77])
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test func `a frame of several descriptors is dropped whole`() throws {
    // The good descriptor is its end.
    #expect(try receive(0b01 | 60 << 32) == [])
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test(
    arguments: [
      0b11, 0b11 | 13 << 32, 0b11 | 2049 << 32, 0b11 | 60 << 32 | 1 << 29, 0b01 | 60 << 32,
    ] as [UInt64])
  func `one at a time, a bad frame is passed over as in a batch`(word: UInt64) throws {
    var lengths: [Int] = []
    do {
      var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
      var transmitter = try bench.device.takeTransmitQueue(0)
      try descriptor(0).storeBytes(of: word, toByteOffset: 8, as: UInt64.self)
      try descriptor(1).storeBytes(of: 0b11 | 77 << 32, toByteOffset: 8, as: UInt64.self)
      for _ in 0..<4 {
        queue.forwardOne(to: &transmitter) { packet in
          lengths.append(packet.count)
          return .drop
        }
      }
    }
    // The good descriptor is the end of a frame of two.
    #expect(lengths == (word & 0b10 == 0 ? [] : [77]))
    #expect(bench.pool.available == bench.pool.capacity, "a buffer is lost")
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test func `a ring full of frames without end does not keep the driver`() throws {
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    for _ in 0..<10 {
      for i in 0..<64 {
        try descriptor(i).storeBytes(of: 0b01 | 60 << 32, toByteOffset: 8, as: UInt64.self)
      }
      #expect(queue.receive(into: &batch) == 0)
    }
  }

  @Test func `a transmit ring that reports what was never sent gives no buffer twice`() throws {
    do {
      var queue = try bench.device.takeTransmitQueue(0)
      for _ in 0..<40 {
        guard let packet = bench.pool.packet(length: 60) else { fatalError("the pool is new") }
        let isSent = queue.transmit(packet) == nil
        #expect(isSent)
      }
      for i in 0..<64 {
        try descriptor(i, transmit: true).storeBytes(of: .max, toByteOffset: 8, as: UInt64.self)
      }
      for _ in 0..<3 { _ = queue.reclaim() }
      // One run of 32 is back; of the other eight, the last is not reported.
      #expect(bench.pool.available == bench.pool.capacity - 8)
    }
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test func `a receive descriptor that changes while it is looked at is read once`() throws {
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    let ring = SharedRing(try descriptor(0))
    // Another thread is the card: now the frame is good, now it is longer than any buffer.
    let thread = Thread {
      while !ring.isEnding.load(ordering: .relaxed) {
        for i in 0..<64 { ring.write(0b11 | 60 << 32, at: i) }
        for i in 0..<64 { ring.write(0b11 | 0xFFFF << 32, at: i) }
      }
    }
    var received = 0
    let end = ContinuousClock.now + .milliseconds(500)
    // Longer where the other thread does not get to run.
    while ContinuousClock.now < end + .seconds(received == 0 ? 60 : 0) {
      received += queue.receive(into: &batch)
      var wrong = 0
      batch.forEach { if $0.count != 60 { wrong += 1 } }
      #expect(wrong == 0)
      batch.removeAll()
    }
    ring.isEnding.store(true, ordering: .relaxed)
    thread.join()
    #expect(received > 0)
  }

  @Test func `receive buffers are announced no larger than they are`() throws {
    for size in [2048, 3072, 4096, 10240] {
      let bench = try IxgbeTestBench { $0.mtu = 1500 }
      let pool = try Mempool(domain: bench.domain, buffers: 256, bufferSize: size)
      let queue = try bench.device.takeReceiveQueue(0, mempool: pool)
      let announced = Int(bench.model.read(bar: 0, 0x1014, width: 4) & 0x1F) * 1024
      #expect(announced > 0 && announced <= size)
      _ = consume queue
    }
  }

  @Test func `master access is stopped before each reset`() throws {
    let card = LoggedDevice(bench.model)
    let device = try IxgbeDevice(card, domain: DMADomain())
    device.stop()
    let control = card.writes.filter { $0.offset == 0 }.map(\.value)
    let resets = control.indices.filter { control[$0] & 1 << 26 != 0 }
    #expect(resets.count == 2)
    for place in resets { #expect(place > 0 && control[place - 1] & 1 << 2 != 0) }
  }
}

/// Descriptors that another thread writes.
private final class SharedRing: @unchecked Sendable {
  private let base: UnsafeMutableRawPointer
  let isEnding = Atomic(false)

  init(_ base: UnsafeMutableRawPointer) { self.base = base }

  func write(_ word: UInt64, at i: Int) { ixy_store64(base + 16 * i + 8, word) }
}

/// A thread of the test's.
private final class Thread {
  private var thread = pthread_t()
  private final class Body {
    let call: @Sendable () -> Void
    init(_ call: @escaping @Sendable () -> Void) { self.call = call }
  }

  init(_ body: @escaping @Sendable () -> Void) {
    pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().call()
        return nil
      }, Unmanaged.passRetained(Body(body)).toOpaque())
  }

  func join() { pthread_join(thread, nil) }
}
