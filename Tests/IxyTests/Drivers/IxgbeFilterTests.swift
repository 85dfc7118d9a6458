@testable import Emulation
import Testing

@testable import Ixy

@Suite struct IxgbeFilterTests {
  private let bench: IxgbeTestBench
  private let groups = ["01:00:5e:00:00:01", "33:33:00:00:00:fb", "01:80:c2:00:00:0e"].compactMap {
    MACAddress($0)
  }

  init() throws { bench = try IxgbeTestBench() }

  /// The numbers of the frames that pass, of one to each address.
  private func passing(_ addresses: [MACAddress]) throws -> [Int] {
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    let frames = addresses.enumerated().map { frame($0.offset, to: $0.element) }
    bench.wire.incoming = frames
    bench.settle()
    queue.receive(into: &batch)
    return batch.takeBytes().compactMap { frames.firstIndex(of: $0) }
  }

  @Test func `only multicast groups of the filter pass`() throws {
    #expect(try passing(groups) == [])
    bench.device.setMulticastFilter([groups[0], groups[2]])
    #expect(try passing(groups) == [0, 2])
    bench.device.setMulticastFilter([])
    #expect(try passing(groups) == [])
  }

  @Test func `all multicast passes when asked for, but no foreign unicast`() throws {
    let foreign = MACAddress(bits: 0x02_00_00_00_00_99)
    bench.device.setAllMulticast(true)
    #expect(try passing(groups + [foreign]) == [0, 1, 2])
    bench.device.setAllMulticast(false)
    #expect(try passing(groups + [foreign]) == [])
  }

  @Test func `the filter stays on when the address changes`() throws {
    let old = bench.device.macAddress
    let new = MACAddress(bits: 0x02_AA_BB_CC_DD_EE)
    try bench.device.setMACAddress(new)
    #expect(bench.device.macAddress == new)
    #expect(try passing([old, new]) == [1])
  }

  @Test(arguments: ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"])
  func `an address that no card can have is refused`(text: String) throws {
    let before = bench.device.macAddress
    let address = try #require(MACAddress(text))
    #expect(throws: DeviceError.self) { try bench.device.setMACAddress(address) }
    #expect(bench.device.macAddress == before)
  }

  @Test func `the card counts what the queues count`() throws {
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var transmitter = try bench.device.takeTransmitQueue(0)
    var batch = PacketBatch(capacity: 64)
    for round in 0..<10 {
      bench.wire.incoming = (0..<20).map { frame($0, size: 100 + round) }
      bench.settle()
      queue.receive(into: &batch)
      transmitter.transmit(&batch)
      bench.settle()
      // Reading clears the card's counters, and must not lose anything.
      _ = bench.device.hardwareCounters()
    }
    let counters = bench.device.hardwareCounters()
    let bytes = UInt64((0..<10).map { 20 * (100 + $0) }.reduce(0, +))
    #expect(counters.goodPacketsReceived == 200 && counters.goodPacketsTransmitted == 200)
    // The FCS is stripped before the octets received are counted, and added before those sent are.
    #expect(counters.goodOctetsReceived == bytes)
    #expect(counters.goodOctetsTransmitted == bytes + 200 * 4)
    #expect(bench.device.statistics().receivedBytes == bytes)
  }

  @Test func `octets over 32 bits are counted`() throws {
    // As the card would have them after 6 GB.
    bench.model.registers[0x04088] = 0x8000_0000
    bench.model.registers[0x0408C] = 1
    #expect(bench.device.hardwareCounters().goodOctetsReceived == 0x1_8000_0000)
    #expect(bench.device.hardwareCounters().goodOctetsReceived == 0x1_8000_0000)
  }
}
