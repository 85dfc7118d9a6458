import Testing

@testable import DriverModels
@testable import Ixy

/// Threads with a queue pair each, over a card whose side of a queue runs in the queue's thread.
@Suite struct QueueThreadTests {
  private struct Lane: ~Copyable {
    private var rx: IxgbeReceiveQueue
    private var tx: IxgbeTransmitQueue
    private var card: StandInQueue

    init(_ device: IxgbeDevice, _ card: StandInCard, _ id: Int, _ domain: DMADomain) throws {
      let pool = try Mempool(domain: domain, buffers: 2048)
      let rx = try device.takeReceiveQueue(id, mempool: pool)
      let tx = try device.takeTransmitQueue(id)
      self.rx = rx
      self.tx = tx
      self.card = card.queue(id)
    }

    mutating func run(_ packets: Int) {
      for _ in 0..<(packets / 32) {
        card.step(32)
        rx.forward(to: &tx, max: 32) { _ in .send }
      }
    }
  }

  @Test func `another thread reads the counters of running queues`() throws {
    let (domain, card) = (DMADomain(), StandInCard())
    var configuration = DeviceConfiguration()
    configuration.receiveQueues = 2
    configuration.transmitQueues = 2
    let device = try IxgbeDevice(card, domain: domain, configuration: configuration)
    let packets = 320_000
    let threads = try (0..<2).map { id in
      let lane = try Lane(device, card, id, domain)
      return try WorkerThread("lane", owning: lane) { $0.run(packets) }
    }
    var last = [UInt64](repeating: 0, count: 2)
    // Once at least: the threads may be over before this one has its turn.
    repeat {
      let sum = device.statistics()
      for id in 0..<2 {
        let (rx, tx) = (device.receiveStatistics(id), device.transmitStatistics(id))
        // What was received is counted before what was sent of it.
        #expect(rx.packets >= last[id] && rx.packets <= UInt64(packets))
        #expect(tx.packets <= UInt64(packets))
        last[id] = rx.packets
      }
      #expect(sum.receivedPackets <= last[0] + last[1])
    } while !threads.allSatisfy(\.isOver)
    for thread in threads { _ = try thread.join() }
    for id in 0..<2 {
      #expect(device.receiveStatistics(id).packets == UInt64(packets))
      #expect(device.receiveStatistics(id).bytes == UInt64(60 * packets))
      #expect(device.transmitStatistics(id).packets == UInt64(packets))
    }
    #expect(device.statistics().receivedPackets == UInt64(2 * packets))
  }

  @Test func `threads take and drop queues and memory of one card at the same time`() throws {
    let (domain, card) = (DMADomain(), StandInCard())
    var configuration = DeviceConfiguration()
    configuration.receiveQueues = 2
    configuration.transmitQueues = 2
    configuration.ringEntries = 64
    let device = try IxgbeDevice(card, domain: domain, configuration: configuration)
    let threads = try (0..<2).map { id in
      try WorkerThread("lane", owning: id) { id in
        for _ in 0..<50 {
          let pool = try Mempool(domain: domain, buffers: 1200)
          let rx = try device.takeReceiveQueue(id, mempool: pool)
          let tx = try device.takeTransmitQueue(id)
          _ = consume rx
          _ = consume tx
        }
      }
    }
    for thread in threads { #expect(try 0..<2 ~= thread.join()) }
  }
}
