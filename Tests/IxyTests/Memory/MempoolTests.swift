import Emulation
import Testing

@testable import Ixy

/// A domain with one emulated device, whose table shows what was mapped.
func testDomain() throws -> (domain: DMADomain, table: DMATable) {
  let domain = DMADomain()
  let table = DMATable()
  try domain.attach(table)
  return (domain, table)
}

@Suite struct MempoolTests {
  @Test func `a packet that is dropped goes back to its pool`() throws {
    let (domain, _) = try testDomain()
    let pool = try Mempool(domain: domain, buffers: 8)
    let packet = pool.packet(length: 60)
    #expect(pool.available == 7)
    _ = consume packet
    #expect(pool.available == 8)
  }

  @Test func `an empty pool gives no packet`() throws {
    let (domain, _) = try testDomain()
    let pool = try Mempool(domain: domain, buffers: 2)
    let first = pool.packet(length: 60)
    let second = pool.packet(length: 60)
    let third = pool.packet(length: 60)
    let isThere = (first != nil, second != nil, third != nil)
    #expect(isThere == (true, true, false))
    _ = consume first
    _ = consume second
    #expect(pool.available == 2)
  }

  @Test func `buffers do not overlap`() throws {
    let (domain, _) = try testDomain()
    let pool = try Mempool(domain: domain, buffers: 3000)
    var batch = PacketBatch(capacity: 3000)
    while var packet = pool.packet(length: 2048) {
      let number = UInt16(batch.count)
      for i in 0..<1024 {
        packet[2 * i] = UInt8(truncatingIfNeeded: number)
        packet[2 * i + 1] = UInt8(truncatingIfNeeded: number >> 8)
      }
      batch.append(packet)
    }
    #expect(batch.count == 3000)
    var wrong = 0
    for number in 0..<3000 {
      for i in 0..<1024
      where Int(batch[number][2 * i]) | Int(batch[number][2 * i + 1]) << 8 != number {
        wrong += 1
      }
    }
    #expect(wrong == 0)
  }

  @Test func `the device finds each byte at the pool's IOVA`() throws {
    let (domain, table) = try testDomain()
    let pool = try Mempool(domain: domain, buffers: 100)
    guard var packet = pool.packet(length: 64) else {
      Issue.record("no packet")
      return
    }
    packet[0] = 0xAB
    packet[63] = 0xCD
    let (address, offset) = unsafe (
      UInt64(UInt(bitPattern: packet.buffer)), packet.pool.pointee.iovaOffset
    )
    var seen = [UInt8](repeating: 0, count: 64)
    let isMapped = unsafe seen.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return false }
      return unsafe table.read(address &+ offset, into: base, count: 64)
    }
    #expect(isMapped && seen[0] == 0xAB && seen[63] == 0xCD)
  }

  @Test func `a pool that dies before its packets leaks them`() throws {
    let (domain, table) = try testDomain()
    var pool: Mempool? = try Mempool(domain: domain, buffers: 4)
    var packet = pool?.packet(length: 60)
    pool = nil
    // Still ours: this would be a write to unmapped memory if the pool had freed it.
    packet?[0] = 1
    #expect(table.count == 1)
    _ = consume packet
  }

  @Test func `a pool that dies with all its buffers is unmapped`() throws {
    let (domain, table) = try testDomain()
    var pool: Mempool? = try Mempool(domain: domain, buffers: 4)
    #expect(pool?.available == 4 && table.count == 1)
    pool = nil
    #expect(table.count == 0)
  }
}

@Suite struct PacketBatchTests {
  @Test func `packets leave in the order in which they came`() throws {
    let (domain, _) = try testDomain()
    let pool = try Mempool(domain: domain, buffers: 10)
    var batch = PacketBatch(capacity: 4)
    for round in 0..<3 {
      for i in 0..<4 {
        guard var packet = pool.packet(length: 60) else { return }
        packet[0] = UInt8(10 * round + i)
        batch.append(packet)
      }
      for i in 0..<4 {
        guard let packet = batch.popFirst() else { return }
        let first = packet[0]
        #expect(first == UInt8(10 * round + i))
      }
      #expect(batch.isEmpty && pool.available == 10)
    }
  }

  @Test func `a batch whose front is gone takes as many again`() throws {
    let (domain, _) = try testDomain()
    let pool = try Mempool(domain: domain, buffers: 10)
    var batch = PacketBatch(capacity: 4)
    var (next, expected) = (0, 0)
    for _ in 0..<20 {
      while batch.count < 4, var packet = pool.packet(length: 60) {
        packet[0] = UInt8(next)
        next += 1
        batch.append(packet)
      }
      // As a full ring leaves it.
      for _ in 0..<3 {
        guard let packet = batch.popFirst() else { return }
        let first = Int(packet[0])
        #expect(first == expected)
        expected += 1
      }
    }
    #expect(batch.count == 1 && pool.available == 9)
  }

  @Test func `a batch that is dropped gives its packets back`() throws {
    let (domain, _) = try testDomain()
    let pool = try Mempool(domain: domain, buffers: 10)
    do {
      var batch = PacketBatch(capacity: 4)
      for _ in 0..<4 { if let packet = pool.packet(length: 60) { batch.append(packet) } }
      _ = batch.popFirst()
      #expect(pool.available == 7)
    }
    #expect(pool.available == 10)
  }

  @Test func `a change in forEach stays`() throws {
    let (domain, _) = try testDomain()
    let pool = try Mempool(domain: domain, buffers: 2)
    var batch = PacketBatch(capacity: 2)
    for _ in 0..<2 { if let packet = pool.packet(length: 60) { batch.append(packet) } }
    batch.forEach { $0[1] = 0xFF }
    // Wrapping, as the forwarder's load does it: a broadcast frame must not trap.
    batch.forEach { $0[1] &+= 1 }
    #expect(batch[0][1] == 0 && batch[1][1] == 0)
  }
}
