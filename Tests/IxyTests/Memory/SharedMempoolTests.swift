import Testing

@testable import Ixy

@Suite struct SharedMempoolTests {
  @Test func `all buffers are there, each once`() throws {
    let (domain, _) = try testDomain()
    for buffers in [1, 31, 32, 33, 1000] {
      let pool = try SharedMempool(domain: domain, buffers: buffers)
      let part = try pool.part(buffers: buffers)
      #expect(pool.distinctBuffers(part) == buffers)
      let rest = try pool.part()
      let isEmpty = rest.packet(length: 60) == nil
      #expect(isEmpty)
    }
  }

  @Test func `more than there is is refused`() throws {
    let (domain, _) = try testDomain()
    let pool = try SharedMempool(domain: domain, buffers: 100)
    let first = try pool.part(buffers: 64)
    #expect(throws: DeviceError.self) { _ = try pool.part(buffers: 64) }
    // What the refused part had is back.
    let second = try pool.part(buffers: 100 - first.available)
    #expect(first.available >= 64 && first.available + second.available == 100)
  }

  @Test func `a part gets more when it has none`() throws {
    let (domain, _) = try testDomain()
    let pool = try SharedMempool(domain: domain, buffers: 100)
    let part = try pool.part()
    #expect(part.available == 0)
    var batch = PacketBatch(capacity: 200)
    while let packet = part.packet(length: 60) { batch.append(packet) }
    #expect(batch.count == 100)
    batch.removeAll()
    #expect(part.available == 100)
  }

  @Test func `what a dropped part had goes to the others`() throws {
    let (domain, _) = try testDomain()
    let pool = try SharedMempool(domain: domain, buffers: 100)
    // Odd numbers, again and again: chunks are split and filled up in every way.
    for count in 1...100 {
      let part = try pool.part(buffers: count)
      let other = try pool.part()
      #expect(part.available >= count)
      _ = other.packet(length: 60)
    }
    let part = try pool.part(buffers: 100)
    #expect(pool.distinctBuffers(part) == 100)
  }

  @Test func `memory is unmapped when pool and parts are gone, in any order`() throws {
    for isPartFirst in [true, false] {
      let (domain, table) = try testDomain()
      var pool: SharedMempool? = try SharedMempool(domain: domain, buffers: 100)
      var part: Mempool? = try pool?.part(buffers: 50)
      #expect(table.count == 1)
      if isPartFirst { part = nil } else { pool = nil }
      #expect(table.count == 1)
      _ = part?.packet(length: 60)
      part = nil
      pool = nil
      #expect(table.count == 0)
    }
  }

  @Test func `a packet that outlives its part keeps the memory`() throws {
    let (domain, table) = try testDomain()
    var pool: SharedMempool? = try SharedMempool(domain: domain, buffers: 100)
    var part: Mempool? = try pool?.part(buffers: 50)
    var packet = part?.packet(length: 60)
    part = nil
    pool = nil
    // This would be a write to unmapped memory if it was freed.
    packet?[0] = 1
    #expect(table.count == 1)
    _ = consume packet
    #expect(table.count == 1)
  }

  @Test func `a receive queue fills its ring from a part and gives all back`() throws {
    let bench = try IxgbeTestBench()
    let pool = try SharedMempool(domain: bench.domain, buffers: 256)
    do {
      let part = try pool.part(buffers: 64)
      var queue = try bench.device.takeReceiveQueue(0, mempool: part)
      var batch = PacketBatch(capacity: 128)
      // More than the part has at first: it gets the rest by itself.
      for round in 0..<10 {
        bench.wire.incoming = (0..<15).map { frame(15 * round + $0) }
        bench.settle()
        queue.receive(into: &batch, max: 15)
        #expect(batch.count == min(128, 15 * (round + 1)))
      }
    }
    let part = try pool.part(buffers: 256)
    #expect(pool.distinctBuffers(part) == 256)
  }
}

extension SharedMempool {
  /// Takes every packet out of a part, and counts the different buffers.
  func distinctBuffers(_ part: Mempool) -> Int {
    var batch = PacketBatch(capacity: capacity + 1)
    while batch.count < batch.capacity, let packet = part.packet(length: 60) {
      batch.append(packet)
    }
    var seen: Set<UnsafeMutableRawPointer> = []
    batch.forEach { seen.insert($0.buffer) }
    return seen.count == batch.count ? seen.count : -1
  }
}
