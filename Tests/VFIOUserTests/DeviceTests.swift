import Emulation
import Glibc
import Testing

@testable import Ixy
@testable import VFIOUser

/// Our client and our server, over a real socket, the server on a thread of its own.
@Suite struct DeviceTests {
  @Test func `registers are read over the socket`() throws {
    try withServer(ToyModel()) { path in
      let bar = try VFIOUserDevice(path: path).bar(0)
      #expect(bar.size == 0x2000)
      #expect(bar.read(ToyModel.Register.identity, width: 4) == 0x1234_5678)
      #expect(bar.read(ToyModel.Register.identity + 1, width: 1) == 0x56)
      #expect(bar.read(ToyModel.Register.identity + 2, width: 2) == 0x1234)
    }
  }

  @Test(arguments: [1, 2, 4, 8])
  func `registers are written over the socket`(width: Int) throws {
    try withServer(ToyModel()) { path in
      let bar = try VFIOUserDevice(path: path).bar(0)
      bar.write(0x1122_3344_5566_7788, to: ToyModel.Register.scratch, width: width)
      let expected = 0x1122_3344_5566_7788 & (UInt64.max >> UInt64(64 - 8 * width))
      #expect(bar.read(ToyModel.Register.scratch, width: 8) == expected)
    }
  }

  @Test func `a register that a read clears is read once`() throws {
    try withServer(ToyModel()) { path in
      let bar = try VFIOUserDevice(path: path).bar(0)
      bar.write(1, to: ToyModel.Register.scratch, width: 4)
      bar.write(1, to: ToyModel.Register.scratch, width: 4)
      #expect(bar.read(ToyModel.Register.events, width: 4) == 2)
      #expect(bar.read(ToyModel.Register.events, width: 4) == 0)
    }
  }

  @Test func `config space is read in each width`() throws {
    try withServer(ToyModel()) { path in
      let device = try VFIOUserDevice(path: path)
      #expect(try device.identity() == PCIIdentity(vendor: 0x8086, device: 0x15AB))
      #expect(try device.readConfig(0x34, width: 1) == 0x50)
      try device.setBusMaster(true)
      #expect(try device.readConfig(4, width: 2) == 6)
    }
  }

  @Test func `a served card shares no domain with one that has physical addresses`() throws {
    try withServer(ToyModel()) { path in
      let device = try VFIOUserDevice(path: path)
      let physical = DMADomain()
      try physical.usePhysicalAddresses()
      #expect(throws: DeviceError.self) { try device.attach(to: physical) }
      let shared = DMADomain()
      try device.attach(to: shared)
      #expect(throws: DeviceError.self) { try shared.usePhysicalAddresses() }
    }
  }

  @Test func `a doorbell in a shared page reaches the model without a message`() throws {
    let model = try ToyModel()
    try withServer(model) { path in
      let bar = try VFIOUserDevice(path: path).bar(0)
      bar.write(42, to: ToyModel.Register.doorbell, width: 4)
      let deadline = ContinuousClock.now + .seconds(2)
      while bar.read(ToyModel.Register.taken, width: 4) != 42, .now < deadline { usleep(100) }
      #expect(bar.read(ToyModel.Register.taken, width: 4) == 42)
    }
    #expect(model.log == ["doorbell 42"])
  }

  @Test func `a client that keeps its pages cannot ring the doorbells of the next`() throws {
    let model = try NIC82599(
      wire: LoopWire(), mac: MACAddress(bits: 0x02_00_00_00_00_01), family: .i82599)
    try withServer(model) { path in
      let old = try #require(RemoteRegion(of: VFIOUserDevice(path: path), 0).pages)
      let bar = try VFIOUserDevice(path: path).bar(0)
      let tail = 0x1018
      #expect(bar.read(tail, width: 4) == 0)
      old.storeBytes(of: 9, toByteOffset: tail, as: UInt32.self)
      #expect(bar.read(tail, width: 4) == 0)
      bar.write(7, to: tail, width: 4)
      #expect(old.load(fromByteOffset: tail, as: UInt32.self) == 9)
    }
  }

  @Test func `a doorbell before a message takes effect before it`() throws {
    let model = try ToyModel()
    try withServer(model) { path in
      let bar = try VFIOUserDevice(path: path).bar(0)
      for round in 1...200 {
        bar.write(UInt64(round), to: ToyModel.Register.doorbell, width: 4)
        bar.write(UInt64(round), to: ToyModel.Register.scratch, width: 4)
      }
    }
    let expected = (1...200).flatMap { ["doorbell \($0)", "write 0 8 \($0)"] }
    #expect(model.log == expected)
  }

  @Test func `without shared pages the doorbell is a message`() throws {
    let model = try ToyModel()
    try withServer(model, sharesPages: false) { path in
      let bar = try VFIOUserDevice(path: path).bar(0)
      bar.write(42, to: ToyModel.Register.doorbell, width: 4)
      #expect(bar.read(ToyModel.Register.doorbell, width: 4) == 42)
    }
    #expect(model.log.first == "write 0 4096 42")
  }

  @Test func `posted writes keep their order`() throws {
    let model = try ToyModel()
    try withServer(model, sharesPages: false) { path in
      let bar = try VFIOUserDevice(path: path).bar(2)
      for value in 0..<5000 { bar.write(UInt64(value), to: 8, width: 4) }
      #expect(bar.read(8, width: 4) == 4999)
    }
    #expect(model.log == (0..<5000).map { "write 2 8 \($0)" })
  }

  @Test func `the device copies in memory of the domain`() throws {
    try withServer(ToyModel()) { path in
      let device = try VFIOUserDevice(path: path)
      let domain = DMADomain()
      try device.attach(to: domain)
      let source = try domain.allocate(4096)
      // Larger than the first block: a mapping that is made after the device was attached.
      let target = try domain.allocate(DMADomain.pageSize + 4096)
      for index in 0..<4096 {
        source.base.storeBytes(of: UInt8(index % 251), toByteOffset: index, as: UInt8.self)
      }
      let bar = try device.bar(0)
      bar.write(source.iova, to: ToyModel.Register.source, width: 8)
      bar.write(target.iova + 0x200000, to: ToyModel.Register.target, width: 8)
      bar.write(4096, to: ToyModel.Register.length, width: 4)
      bar.write(0, to: ToyModel.Register.go, width: 4)
      #expect(memcmp(source.base, target.base + 0x200000, 4096) == 0)
    }
  }

  @Test func `a device sees memory that was made before it was attached`() throws {
    let model = try ToyModel()
    try withServer(model) { path in
      let domain = DMADomain()
      let first = DMATable()
      try domain.attach(first)
      let memory = try domain.allocate(64)
      let device = try VFIOUserDevice(path: path)
      try device.attach(to: domain)
      let bar = try device.bar(0)
      memory.base.storeBytes(of: 0xABCD, as: UInt64.self)
      bar.write(memory.iova, to: ToyModel.Register.source, width: 8)
      bar.write(memory.iova + 8, to: ToyModel.Register.target, width: 8)
      bar.write(8, to: ToyModel.Register.length, width: 4)
      bar.write(0, to: ToyModel.Register.go, width: 4)
      #expect(memory.base.load(fromByteOffset: 8, as: UInt64.self) == 0xABCD)
    }
  }

  @Test func `memory that is dropped is unmapped`() throws {
    let model = try ToyModel()
    try withServer(model) { path in
      let device = try VFIOUserDevice(path: path)
      let domain = DMADomain()
      try device.attach(to: domain)
      let bar = try device.bar(0)
      do {
        let memory = try domain.allocate(4096)
        bar.write(memory.iova, to: ToyModel.Register.source, width: 8)
        bar.write(memory.iova + 8, to: ToyModel.Register.target, width: 8)
        bar.write(8, to: ToyModel.Register.length, width: 4)
      }
      bar.write(0, to: ToyModel.Register.go, width: 4)
    }
    #expect(model.dma.violations == 1)
    #expect(model.dma.count == 0)
  }

  @Test func `after a client goes the next one finds a device as after power-on`() throws {
    let model = try ToyModel()
    let server = try VFIOUserServer(model: model, path: socketPath())
    let job = ServerJob([server])
    for _ in 0..<3 {
      let device = try VFIOUserDevice(path: server.path)
      let domain = DMADomain()
      try device.attach(to: domain)
      let memory = try domain.allocate(64)
      let bar = try device.bar(0)
      #expect(bar.read(ToyModel.Register.scratch, width: 4) == 0)
      bar.write(memory.iova, to: ToyModel.Register.scratch, width: 4)
    }
    job.stop()
    while server.poll() > 0 {}
    #expect(model.resets == 3)
    #expect(model.dma.count == 0)
    #expect(model.interrupts == nil)
  }

  @Test func `a reset puts registers back`() throws {
    try withServer(ToyModel()) { path in
      let device = try VFIOUserDevice(path: path)
      let bar = try device.bar(0)
      bar.write(5, to: ToyModel.Register.scratch, width: 4)
      try device.reset()
      #expect(bar.read(ToyModel.Register.scratch, width: 4) == 0)
    }
  }

  @Test(arguments: [1, 6, -1])
  func `a BAR that the device has not is refused`(index: Int) throws {
    try withServer(ToyModel()) { path in
      let device = try VFIOUserDevice(path: path)
      #expect(throws: DeviceError.self) { try device.bar(index) }
      #expect(try device.bar(2).size == 0x20)
    }
  }

  @Test func `several threads use one device`() throws {
    try withServer(ToyModel()) { path in
      let bar = try VFIOUserDevice(path: path).bar(2)
      let threads = (0..<4).map { thread in
        TestThread {
          for round in 0..<500 {
            let value = UInt64(thread * 1000 + round)
            bar.write(value, to: 8 * thread, width: 8)
            #expect(bar.read(8 * thread, width: 8) == value)
          }
        }
      }
      for thread in threads { thread.join() }
    }
  }

  @Test func `a client that finds nobody learns how to start a server`() throws {
    let error = #expect(throws: DeviceError.self) { try VFIOUserDevice(path: "/tmp/nobody") }
    #expect(try #require(error).description.contains("ixy emulate 82599 --socket /tmp/nobody"))
  }

  @Test func `a second client learns that the server is busy`() throws {
    try withServer(ToyModel()) { path in
      let first = try VFIOUserDevice(path: path)
      let error = #expect(throws: DeviceError.self) {
        try VFIOUserDevice(path: path, timeout: .milliseconds(100))
      }
      #expect(try #require(error).description.contains("one client at a time"))
      #expect(try first.readConfig(0, width: 2) == 0x8086)
    }
  }

  @Test func `when the server goes registers read as all ones`() throws {
    var server: VFIOUserServer? = try VFIOUserServer(model: ToyModel(), path: socketPath())
    let job = ServerJob([try #require(server)])
    let device = try VFIOUserDevice(path: try #require(server).path)
    let bar = try device.bar(0)
    job.stop()
    server = nil
    #expect(bar.read(0, width: 4) == 0xFFFF_FFFF)
    #expect(bar.read(0, width: 2) == 0xFFFF)
    #expect(bar.read(0, width: 8) == .max)
    bar.write(1, to: 8, width: 4)
    let error = #expect(throws: DeviceError.self) { try device.readConfig(0, width: 4) }
    guard case .gone = error else { throw try #require(error) }
  }

  @Test func `several servers run in one thread`() throws {
    let models = try (0..<3).map { _ in try ToyModel() }
    let servers = try models.map { try VFIOUserServer(model: $0, path: socketPath()) }
    let job = ServerJob(servers)
    do {
      let bars = try servers.map { try VFIOUserDevice(path: $0.path).bar(0) }
      for (index, bar) in bars.enumerated() {
        bar.write(UInt64(index), to: ToyModel.Register.scratch, width: 4)
        bar.write(UInt64(index) + 10, to: ToyModel.Register.doorbell, width: 4)
      }
      for (index, bar) in bars.enumerated() {
        #expect(bar.read(ToyModel.Register.scratch, width: 4) == UInt64(index))
      }
    }
    job.stop()
    for (index, model) in models.enumerated() {
      #expect(model.log.contains("doorbell \(index + 10)"))
    }
  }
}
