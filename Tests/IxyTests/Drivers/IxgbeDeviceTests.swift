import Emulation
import Testing

@testable import Ixy

@Suite struct IxgbeDeviceTests {
  @Test(arguments: [NIC82599.Family.i82599, .x540, .x550])
  func `each family comes up with its link and address`(family: NIC82599.Family) throws {
    let bench = try IxgbeTestBench(family: family)
    #expect(try bench.device.link() == Link(megabitsPerSecond: 10_000))
    #expect("\(bench.device.macAddress)" == "02:1b:21:00:00:01")
    #expect(bench.device.driverName == "ixgbe")
  }

  @Test(arguments: [NIC82599.Family.x540, .x550])
  func `what the PHY owns is left alone`(family: NIC82599.Family) throws {
    let fresh = try NIC82599(
      wire: TestWire(), mac: MACAddress(bits: 0x02_1B_21_00_00_02), family: family)
    let bench = try IxgbeTestBench(family: family)
    // AUTOC, AUTOC2, MSCA and MSRWD: the MAC's link mode, and the way to the PHY's registers.
    for register in [0x042A0, 0x042A8, 0x0425C, 0x04260] {
      #expect(
        bench.model.read(bar: 0, register, width: 4) == fresh.read(bar: 0, register, width: 4))
    }
  }

  @Test func `the link goes down and up with the wire`() throws {
    let bench = try IxgbeTestBench()
    bench.wire.isConnected = false
    _ = bench.model.step()
    #expect(try !bench.device.link().isUp)
    bench.wire.isConnected = true
    _ = bench.model.step()
    #expect(try bench.device.link().isUp)
  }

  @Test func `stop turns bus mastering off and the card silent`() throws {
    let bench = try IxgbeTestBench()
    var queue = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    #expect(bench.model.readConfig(4, width: 2) & 4 == 4)
    bench.device.stop()
    #expect(bench.model.readConfig(4, width: 2) & 4 == 0)
    // RXCTRL and the ring's RXDCTL are as after a reset.
    #expect(bench.model.read(bar: 0, 0x03000, width: 4) == 0)
    #expect(bench.model.read(bar: 0, 0x01028, width: 4) & 1 << 25 == 0)
    bench.wire.incoming = [frame(1)]
    bench.settle()
    var batch = PacketBatch(capacity: 8)
    #expect(queue.receive(into: &batch) == 0)
    #expect(bench.model.dma.violations == 0)
  }

  @Test func `a card is opened fifty times without a leak`() throws {
    let domain = DMADomain()
    let model = try NIC82599(wire: TestWire(), mac: MACAddress(bits: 0x02_00_00_00_00_01))
    for _ in 0..<50 {
      let device = try IxgbeDevice(InProcessDevice(model), domain: domain)
      let pool = try Mempool(domain: domain, buffers: 1024)
      let receiver = try device.takeReceiveQueue(0, mempool: pool)
      let transmitter = try device.takeTransmitQueue(0)
      _ = consume receiver
      _ = consume transmitter
      #expect(pool.available == 1024)
    }
    #expect(model.dma.count <= 1)
  }

  @Test func `an impossible configuration is refused before the card is touched`() throws {
    let model = try NIC82599(wire: TestWire(), mac: MACAddress(bits: 0x02_00_00_00_00_01))
    let changes: [(inout DeviceConfiguration) -> Void] = [
      { $0.mtu = 67 }, { $0.mtu = 9583 }, { $0.ringEntries = 63 }, { $0.ringEntries = 96 },
      { $0.ringEntries = 8192 }, { $0.receiveQueues = 0 }, { $0.receiveQueues = 65 },
      { $0.transmitQueues = 65 },
    ]
    for change in changes {
      var configuration = DeviceConfiguration()
      change(&configuration)
      #expect(throws: DeviceError.self) {
        _ = try IxgbeDevice(
          InProcessDevice(model), domain: DMADomain(), configuration: configuration)
      }
      #expect(model.readConfig(4, width: 2) & 4 == 0)
    }
  }

  @Test func `a card of another kind is refused`() throws {
    let model = try NIC82599(wire: TestWire(), mac: MACAddress(bits: 0x02_00_00_00_00_01))
    let bus = RenamedDevice(model, PCIIdentity(0x8086, 0x1234))
    #expect(throws: DeviceError.self) { _ = try openDevice(bus, domain: DMADomain()) }
    #expect(throws: DeviceError.self) { _ = try IxgbeDevice(bus, domain: DMADomain()) }
  }

  @Test func `a card with too few registers is refused`() throws {
    let model = try NIC82599(wire: TestWire(), mac: MACAddress(bits: 0x02_00_00_00_00_01))
    let bus = RenamedDevice(model, PCIIdentity(0x8086, 0x10FB), barSize: 4096)
    #expect(throws: DeviceError.self) { _ = try IxgbeDevice(bus, domain: DMADomain()) }
  }

  @Test func `all ids of the reference have a driver`() {
    let ids: [UInt16] = [
      0x10FB, 0x10F7, 0x1514, 0x1517, 0x10F8, 0x10F9, 0x10FC, 0x1507, 0x151C, 0x1529, 0x152A,
      0x154D, 0x154A, 0x1558, 0x1557, 0x154F, 0x1528, 0x1560, 0x1563, 0x15D1, 0x15AA, 0x15AB,
      0x15AC, 0x15AD, 0x15AE, 0x15B0,
    ]
    for id in ids { #expect(driverName(for: PCIIdentity(0x8086, id)) == "ixgbe") }
    // The 82598 and the virtual functions are other devices.
    for id: UInt16 in [0x10B6, 0x10ED, 0x1515, 0x1565] {
      #expect(driverName(for: PCIIdentity(0x8086, id)) == nil)
    }
    #expect(driverName(for: PCIIdentity(0x8087, 0x10FB)) == nil)
  }
}

/// A card with another identity, or fewer registers.
private final class RenamedDevice: PCIDevice {
  private let inner: InProcessDevice
  private let identity: PCIIdentity

  private let barSize: Int?

  init(_ model: NIC82599, _ identity: PCIIdentity, barSize: Int? = nil) {
    inner = InProcessDevice(model)
    self.identity = identity
    self.barSize = barSize
  }

  var name: String { "renamed" }
  func bar(_ index: Int) throws(DeviceError) -> BAR {
    if let barSize { return ForwardedBAR(NoRegisters(), size: barSize) }
    return try inner.bar(index)
  }
  func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    if offset == 0 { return UInt32(identity.vendor) | UInt32(identity.device) << 16 }
    return try inner.readConfig(offset, width: width)
  }
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    try inner.writeConfig(value, to: offset, width: width)
  }
  func attach(to domain: DMADomain) throws(DeviceError) { try inner.attach(to: domain) }
}

private final class NoRegisters: RegisterAccess {
  func read(_ offset: Int, width: Int) -> UInt64 { 0 }
  func write(_ value: UInt64, to offset: Int, width: Int) {}
}
