import Emulation
import Testing

@testable import Ixy

/// Addresses and ports of a flow, as they are hashed.
struct Flow: Hashable, Sendable, CustomTestStringConvertible {
  var source: [UInt8]
  var target: [UInt8]
  var ports: (source: UInt16, target: UInt16)
  /// 6 is TCP, 17 is UDP.
  var next: UInt8 = 17

  init(_ source: [UInt8], _ from: UInt16, _ target: [UInt8], _ to: UInt16, next: UInt8 = 17) {
    (self.source, self.target, ports, self.next) = (source, target, (from, to), next)
  }

  /// One of many, over IPv4.
  init(_ number: Int) {
    let bytes = [UInt8(truncatingIfNeeded: number), UInt8(truncatingIfNeeded: number >> 8)]
    self.init(
      [10, 0, bytes[1], bytes[0]], UInt16(1000 + number % 50_000), [192, 168, 7, bytes[0] ^ 0x55],
      80, next: number % 2 == 0 ? 6 : 17)
  }

  var testDescription: String { "\(source):\(ports.source) to \(target):\(ports.target)" }
  var back: Flow { Flow(target, ports.target, source, ports.source, next: next) }
  /// What is hashed, with ports.
  var tuple: [UInt8] { source + target + big(ports.source) + big(ports.target) }

  static func == (a: Flow, b: Flow) -> Bool { a.tuple == b.tuple && a.next == b.next }
  func hash(into hasher: inout Hasher) { hasher.combine(tuple) }

  private func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }

  /// A broadcast frame of this flow, with a number in its payload.
  func frame(_ number: Int = 0) -> [UInt8] {
    let isIPv4 = source.count == 4
    var frame: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02, 0, 0, 0, 0, 1]
    frame += isIPv4 ? [8, 0] : [0x86, 0xDD]
    if isIPv4 {
      frame += [0x45, 0] + big(60) + [0, 0, 0x40, 0, 64, next, 0, 0] + source + target
    } else {
      frame += [0x60, 0, 0, 0] + big(40) + [next, 64] + source + target
    }
    // A TCP header without options, or a UDP header and bytes that look like anything.
    frame += big(ports.source) + big(ports.target) + (next == 6 ? [] : big(40) + [0, 0])
    while frame.count < (isIPv4 ? 74 : 94) { frame.append(next == 6 ? 0x50 : 7) }
    for i in 0..<4 { frame[frame.count - 4 + i] = UInt8(truncatingIfNeeded: number >> (8 * i)) }
    return frame
  }

  /// The number in the payload of a frame.
  static func number(of frame: [UInt8]) -> Int {
    frame.suffix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
  }
}

/// A card with several queues, opened as applications do.
struct ScalingBench {
  let wire = TestWire()
  let model: NIC82599
  let device: any EthernetDevice
  let pool: Mempool

  init(
    _ family: NIC82599.Family = .i82599, queues: Int, buffers: Int = 2048
  ) throws {
    let domain = DMADomain()
    model = try NIC82599(wire: wire, mac: MACAddress(bits: 0x02_1B_21_00_00_01), family: family)
    var configuration = DeviceConfiguration()
    configuration.ringEntries = 64
    configuration.receiveQueues = queues
    configuration.transmitQueues = queues
    device = try openDevice(
      InProcessDevice(model), domain: domain, configuration: configuration)
    pool = try Mempool(domain: domain, buffers: buffers)
  }

  var spreader: any FrameSpreader {
    get throws { try #require(device as? any FrameSpreader) }
  }

  func settle() { while model.step() > 0 {} }

  /// Receives what is there.
  func receive(_ queue: inout any ReceiveQueue & ~Copyable) throws -> [(hash: UInt32, [UInt8])] {
    var batch = PacketBatch(capacity: 64)
    var found: [(UInt32, [UInt8])] = []
    while try queue.receive(into: &batch, max: 64) > 0 {
      while let packet = batch.popFirst() { found.append((packet.hash, packet.frame)) }
    }
    return found
  }
}

@Suite struct ScalingTests {
  static func v6(_ groups: UInt16...) -> [UInt8] {
    groups.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
  }

  /// The published vectors for the published key, with ports.
  static let vectors: [(flow: Flow, hash: UInt32, plain: UInt32)] = [
    (Flow([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766), 0x51CC_C178, 0x323E_8FC2),
    (Flow([199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739), 0xC626_B0EA, 0xD718_262A),
    (Flow([24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024), 0x5C2B_394A, 0xD2D0_A5DE),
    (Flow([38, 27, 205, 30], 48228, [209, 142, 163, 6], 2217), 0xAFC7_327F, 0x8298_9176),
    (Flow([153, 39, 163, 191], 44251, [202, 188, 127, 2], 1303), 0x10E8_28A2, 0x5D18_09C5),
    (
      Flow(
        v6(0x3FFE, 0x2501, 0x200, 0x1FFF, 0, 0, 0, 7), 2794,
        v6(0x3FFE, 0x2501, 0x200, 3, 0, 0, 0, 1), 1766), 0x4020_7D3D, 0x2CC1_8CD5
    ),
    (
      Flow(
        v6(0x3FFE, 0x501, 8, 0, 0x260, 0x97FF, 0xFE40, 0xEFAB), 14230,
        v6(0xFF02, 0, 0, 0, 0, 0, 0, 1), 4739), 0xDDE5_1BBF, 0x0F0C_461C
    ),
    (
      Flow(
        v6(0x3FFE, 0x1900, 0x4545, 3, 0x200, 0xF8FF, 0xFE21, 0x67CF), 44251,
        v6(0xFE80, 0, 0, 0, 0x200, 0xF8FF, 0xFE21, 0x67CF), 38024), 0x02D1_FEEF, 0x4B61_E985
    ),
  ]

  @Test(arguments: vectors.indices)
  func `our own hash is the published one`(index: Int) {
    let scaling = ReceiveSideScaling(queues: 1)
    let (flow, hash, plain) = Self.vectors[index]
    #expect(scaling.hash(of: flow.tuple) == hash)
    #expect(scaling.hash(of: flow.source + flow.target) == plain)
  }

  @Test(arguments: [6, 17] as [UInt8])
  func `packets carry the published hash`(next: UInt8) throws {
    let bench = try ScalingBench(queues: 1)
    try bench.spreader.setReceiveSideScaling(ReceiveSideScaling(queues: 1))
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    for (flow, hash, _) in Self.vectors {
      var flow = flow
      flow.next = next
      bench.wire.incoming = [flow.frame()]
      bench.settle()
      #expect(try bench.receive(&queue).map(\.hash) == [hash])
    }
  }

  @Test func `with addresses alone the ports do not matter`() throws {
    let bench = try ScalingBench(queues: 1)
    var scaling = ReceiveSideScaling(queues: 1)
    scaling.fields = .addresses
    try bench.spreader.setReceiveSideScaling(scaling)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    for (flow, _, plain) in Self.vectors {
      bench.wire.incoming = [flow.frame()]
      bench.settle()
      #expect(try bench.receive(&queue).map(\.hash) == [plain])
    }
  }

  @Test func `a thousand flows use four queues, each flow one of them and in order`() throws {
    let bench = try ScalingBench(queues: 4)
    let queues = try (0..<4).map {
      ReceiveEnd(try bench.device.receiveQueue($0, mempool: bench.pool))
    }
    let scaling = ReceiveSideScaling(queues: 4)
    let flows = (0..<1000).map { Flow($0) }
    #expect(Set(flows).count == 1000)
    let numbers = Dictionary(uniqueKeysWithValues: flows.enumerated().map { ($1.tuple, $0) })
    var next = [Int](repeating: 0, count: 1000)
    var queueOf = [Int?](repeating: nil, count: 1000)
    var counts = [Int](repeating: 0, count: 4)
    for round in 0..<5 {
      for start in stride(from: 0, to: 1000, by: 50) {
        bench.wire.incoming = flows[start..<start + 50].map { $0.frame(round) }
        bench.settle()
        for (id, queue) in queues.enumerated() {
          for (hash, frame) in try bench.receive(&queue.queue) {
            let flow = try #require(numbers[[UInt8](frame[26..<38])])
            #expect(hash == scaling.hash(of: flows[flow].tuple))
            #expect(Flow.number(of: frame) == next[flow], "flow \(flow) out of order")
            next[flow] += 1
            #expect(queueOf[flow] ?? id == id, "flow \(flow) on two queues")
            queueOf[flow] = id
            counts[id] += 1
          }
        }
      }
    }
    #expect(next.allSatisfy { $0 == 5 }, "every frame arrived")
    #expect(counts.allSatisfy { $0 > 500 }, "\(counts)")
    for id in 0..<4 {
      #expect(bench.device.receiveStatistics(id).packets == UInt64(counts[id]))
      #expect(bench.device.receiveStatistics(id).bytes == UInt64(counts[id] * 74))
    }
    #expect(bench.device.statistics().receivedPackets == 5000)
  }

  @Test func `with the symmetric key both directions of a flow meet on one queue`() throws {
    let bench = try ScalingBench(queues: 4)
    var scaling = ReceiveSideScaling(queues: 4)
    scaling.key = ReceiveSideScaling.symmetricKey
    try bench.spreader.setReceiveSideScaling(scaling)
    let queues = try (0..<4).map {
      ReceiveEnd(try bench.device.receiveQueue($0, mempool: bench.pool))
    }
    var used: Set<Int> = []
    for number in 0..<200 {
      let flow = number < 190 ? Flow(number) : Self.vectors[5 + number % 3].flow
      bench.wire.incoming = [flow.frame(), flow.back.frame()]
      bench.settle()
      let found = try queues.map { try bench.receive(&$0.queue).map(\.hash) }
      let id = try #require(found.firstIndex { !$0.isEmpty })
      #expect(found[id].count == 2 && found[id][0] == found[id][1], "\(flow.testDescription)")
      used.insert(id)
    }
    #expect(used.count == 4)
  }

  @Test func `the table says which queue`() throws {
    let bench = try ScalingBench(queues: 4)
    var scaling = ReceiveSideScaling(queues: 4)
    // Queue 3 gets one value of 128, queue 1 all others.
    scaling.table = (0..<128).map { $0 == 77 ? 3 : 1 }
    try bench.spreader.setReceiveSideScaling(scaling)
    let queues = try (0..<4).map {
      ReceiveEnd(try bench.device.receiveQueue($0, mempool: bench.pool))
    }
    for number in 0..<400 {
      bench.wire.incoming = [Flow(number).frame()]
      bench.settle()
      let found = try queues.map { try bench.receive(&$0.queue).map(\.hash) }
      let hash = scaling.hash(of: Flow(number).tuple)
      #expect(found == (hash & 127 == 77 ? [[], [], [], [hash]] : [[], [hash], [], []]))
    }
  }

  @Test func `what cannot be is refused`() throws {
    let bench = try ScalingBench(queues: 4)
    let spreader = try bench.spreader
    func refused(_ change: (inout ReceiveSideScaling) -> Void) {
      var scaling = ReceiveSideScaling(queues: 4)
      change(&scaling)
      #expect(throws: DeviceError.self) { try spreader.setReceiveSideScaling(scaling) }
    }
    refused { $0.key.removeLast() }
    refused { $0.key = [] }
    refused { $0.table.append(0) }
    refused { $0.table = [] }
    refused { $0.table[5] = 4 }
    refused { $0.table[127] = -1 }
    try spreader.setReceiveSideScaling(ReceiveSideScaling(queues: 3))
    let queue = try bench.device.receiveQueue(3, mempool: bench.pool)
    refused { _ in }
    _ = consume queue
    // Wide tables are the X550's.
    let many = try ScalingBench(queues: 64)
    #expect(throws: DeviceError.self) {
      try many.spreader.setReceiveSideScaling(ReceiveSideScaling(queues: 17))
    }
  }

  // MARK: - Many queues

  @Test(arguments: [(.i82599, 16), (.x540, 16), (.x550, 64)] as [(NIC82599.Family, Int)])
  func `each queue receives alone`(family: NIC82599.Family, spreadable: Int) throws {
    let bench = try ScalingBench(family, queues: 64)
    #expect(try bench.spreader.spreadableQueues == spreadable)
    let scaling = ReceiveSideScaling(queues: spreadable)
    for id in 0..<spreadable {
      let number = (0...).first {
        scaling.table[Int(scaling.hash(of: Flow($0).tuple) & 127)] == id
      }
      let flow = Flow(try #require(number))
      let end = ReceiveEnd(try bench.device.receiveQueue(id, mempool: bench.pool))
      for round in 0..<3 {
        bench.wire.incoming = (0..<40).map { flow.frame(40 * round + $0) }
        bench.settle()
        let found = try bench.receive(&end.queue)
        #expect(found.map { Flow.number(of: $0.1) } == Array(40 * round..<40 * round + 40))
      }
      #expect(bench.device.receiveStatistics(id).packets == 120)
    }
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test(arguments: [.i82599, .x550] as [NIC82599.Family])
  func `each queue sends alone`(family: NIC82599.Family) throws {
    let bench = try ScalingBench(family, queues: 64)
    for id in 0..<64 {
      var queue = try bench.device.transmitQueue(id)
      for number in 0..<100 {
        var packet = try bench.pool.fresh(60)
        packet.fill(frame(id * 1000 + number))
        let isSent = try queue.transmit(packet) == nil
        #expect(isSent)
        if number % 40 == 39 { bench.settle() }
      }
      bench.settle()
      #expect(bench.wire.outgoing == (0..<100).map { frame(id * 1000 + $0) }, "queue \(id)")
      bench.wire.outgoing = []
      #expect(bench.device.transmitStatistics(id).packets == 100)
    }
    #expect(bench.pool.available == bench.pool.capacity)
  }

  @Test(arguments: [.i82599, .x550] as [NIC82599.Family])
  func `64 queues each way are open at once`(family: NIC82599.Family) throws {
    let bench = try ScalingBench(family, queues: 64, buffers: 8192)
    let receivers = try (0..<64).map {
      ReceiveEnd(try bench.device.receiveQueue($0, mempool: bench.pool))
    }
    let transmitters = try (0..<64).map { TransmitEnd(try bench.device.transmitQueue($0)) }
    var batch = PacketBatch(capacity: 64)
    var used: Set<Int> = []
    for start in stride(from: 0, to: 2000, by: 20) {
      let flows = (start..<start + 20).map { Flow($0).frame($0) }
      bench.wire.incoming = flows
      bench.settle()
      for id in 0..<64 {
        let count = try receivers[id].queue.receive(into: &batch, max: 64)
        if count > 0 { used.insert(id) }
        // Out by any queue, those that the table cannot name included.
        #expect(try transmitters[(id + start) % 64].queue.transmit(&batch) == count)
      }
      bench.settle()
      #expect(Set(bench.wire.outgoing) == Set(flows))
      bench.wire.outgoing = []
    }
    #expect(used.count == (family == .x550 ? 64 : 16))
    for id in 0..<64 { #expect(bench.device.transmitStatistics(id).packets > 0, "queue \(id)") }
  }
}

/// A queue in an array.
final class ReceiveEnd {
  var queue: any ReceiveQueue & ~Copyable
  init(_ queue: consuming any ReceiveQueue & ~Copyable) { self.queue = queue }
}

/// A queue in an array.
final class TransmitEnd {
  var queue: any TransmitQueue & ~Copyable
  init(_ queue: consuming any TransmitQueue & ~Copyable) { self.queue = queue }
}
