import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

@Suite struct VirtioDeviceTests {
  @Test func `a card is brought up in the order of the specification`() throws {
    let card = try VirtioCard()
    // Reset, acknowledge, driver, features, driver ready.
    #expect(card.model.statuses == [0, 1, 3, 11, 15])
    #expect(card.model.queues.allSatisfy { $0.isEnabled })
    #expect(card.device.macAddress.description == "52:54:00:12:34:56")
    #expect(try card.device.link() == Link(megabitsPerSecond: 10_000))
  }

  @Test func `no offload is ever accepted`() throws {
    let card = try VirtioCard(VirtioModel(offering: .max & ~VirtioModel.mtu))
    let offloads: UInt64 = 0b111 | 0x7FC0 | 1 << 18 & 0 | 0x3F << 54 & ~VirtioModel.hash
    #expect(card.model.accepted & offloads == 0)
    #expect(card.model.accepted & VirtioModel.mergeable == 0)
    #expect(card.model.accepted & (1 << 35 | 1 << 38) == 0)
  }

  @Test func `a device with nothing but version 1 works`() throws {
    let card = try VirtioCard(VirtioModel(offering: VirtioModel.version1 | VirtioModel.platform))
    var queue = try card.device.receiveQueue(0, mempool: card.pool)
    var batch = PacketBatch(capacity: 8)
    card.model.receive(virtioFrame(1))
    #expect(try queue.receive(into: &batch, max: 8) == 1)
    // Its address is made up, and given locally.
    #expect(card.device.macAddress[0] == 2)
    #expect(try card.device.link().isUp)
    try card.device.setPromiscuous(true)
    #expect(card.model.commands.isEmpty)
  }

  @Test func `a legacy device works`() throws {
    let model = VirtioModel(
      .legacy, offering: VirtioModel.usual | VirtioModel.anyLayout, queueSize: 128)
    let card = try VirtioCard(model)
    #expect(model.statuses == [0, 1, 3, 7])
    #expect(model.headerSize == 10)
    #expect(card.device.macAddress.description == "52:54:00:12:34:56")
    try roundTrip(card)
  }

  @Test func `a legacy device that wants the header in its own descriptor works`() throws {
    let card = try VirtioCard(VirtioModel(.legacy, offering: VirtioModel.usual, queueSize: 64))
    var queue = try card.device.transmitQueue(0)
    #expect(try queue.transmit(card.pool.packet(virtioFrame(0))) == nil)
    let chain = try #require(card.model.take(card.model.queues[1]))
    #expect(chain.parts.map(\.length) == [10, 60])
    try roundTrip(VirtioCard(VirtioModel(.legacy, offering: VirtioModel.usual, queueSize: 64)))
  }

  @Test func `a transitional device is used as a modern one`() throws {
    let card = try VirtioCard(VirtioModel(.transitional))
    #expect(card.model.accepted & VirtioModel.version1 != 0)
    try roundTrip(card)
  }

  /// Sends frames both ways, three turns of the ring.
  private func roundTrip(_ card: VirtioCard) throws {
    var receiver = try card.device.receiveQueue(0, mempool: card.pool)
    var transmitter = try card.device.transmitQueue(0)
    var batch = PacketBatch(capacity: 32)
    for first in stride(from: 0, to: 384, by: 16) {
      let frames = (first..<(first + 16)).map { virtioFrame($0, size: 14 + 3 * $0) }
      for frame in frames { card.model.receive(frame) }
      #expect(try receiver.receive(into: &batch, max: 32) == 16)
      #expect(batch.frames() == frames)
      #expect(try transmitter.transmit(&batch) == 16)
      #expect(card.model.sendAll() == frames)
    }
    #expect(card.model.dma.violations == 0)
  }

  @Test(arguments: [(256, 64, 64), (64, 512, 64), (300, 512, 256), (1024, 128, 128)])
  func `a ring is as large as is wanted and allowed`(most: Int, wanted: Int, size: Int) throws {
    let model = VirtioModel(offering: RingKind.packed.features, queueSize: most)
    let card = try VirtioCard(model, ringEntries: wanted, buffers: 1024)
    #expect(model.queues.prefix(2).allSatisfy { $0.size == size })
    let queue = try card.device.receiveQueue(0, mempool: card.pool)
    #expect(card.pool.available == 1024 - size)
    _ = consume queue
  }

  @Test func `a mempool that is too small is refused before anything happens`() throws {
    let card = try VirtioCard(buffers: 63)
    #expect { _ = try card.device.receiveQueue(0, mempool: card.pool) } throws: { isRefused($0) }
    let larger = try Mempool(domain: card.domain, buffers: 64)
    _ = try card.device.receiveQueue(0, mempool: larger)
  }

  @Test func `a queue is taken once`() throws {
    let card = try VirtioCard()
    let queue = try card.device.transmitQueue(0)
    #expect { _ = try card.device.transmitQueue(0) } throws: { isRefused($0) }
    #expect { _ = try card.device.transmitQueue(1) } throws: { isRefused($0) }
    _ = consume queue
  }

  @Test(arguments: RingKind.allCases)
  func `a queue can be taken again where the device resets single queues`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features | VirtioModel.ringReset))
    for round in 0..<3 {
      var queue = try card.device.receiveQueue(0, mempool: card.pool)
      var batch = PacketBatch(capacity: 64)
      for i in 0..<50 { card.model.receive(virtioFrame(i + round)) }
      #expect(try queue.receive(into: &batch, max: 64) == 50)
      _ = consume queue
      batch.removeAll()
      #expect(card.pool.available == 256)
    }
    #expect(card.model.deviceStatus == 15)
  }

  @Test func `buffers of a dropped queue wait for the reset where there is no other way`() throws {
    let card = try VirtioCard()
    let receiver = try card.device.receiveQueue(0, mempool: card.pool)
    let transmitter = try card.device.transmitQueue(0)
    _ = consume receiver
    // The device may still write to them.
    #expect(card.pool.available == 256 - 64)
    #expect { _ = try card.device.receiveQueue(0, mempool: card.pool) } throws: { isRefused($0) }
    _ = consume transmitter
    #expect(card.pool.available == 256)
    #expect(card.model.deviceStatus == 0)
  }

  @Test func `a device that does not stop keeps the buffers`() throws {
    let card = try VirtioCard()
    let queue = try card.device.receiveQueue(0, mempool: card.pool)
    card.model.resets = false
    _ = consume queue
    #expect(card.pool.available == 256 - 64)
  }

  @Test func `a queue is dropped after its card was stopped`() throws {
    let card = try VirtioCard()
    let queue = try card.device.receiveQueue(0, mempool: card.pool)
    card.device.stop()
    #expect(card.model.config[4] & 4 == 0, "bus mastering is still on")
    _ = consume queue
    #expect(card.pool.available == 256)
  }

  @Test func `no link is no link`() throws {
    let card = try VirtioCard(VirtioModel(offering: VirtioModel.usual | VirtioModel.speed))
    #expect(try card.device.link() == Link(megabitsPerSecond: 10_000))
    card.model.configuration[12] = 0xE8
    card.model.configuration[13] = 3
    #expect(try card.device.link() == Link(megabitsPerSecond: 1000))
    card.model.configuration[6] = 0
    #expect(try card.device.link() == Link(megabitsPerSecond: 0))
    card.model.configuration.replaceSubrange(
      6..<16, with: [1, 0, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF])
    #expect(try card.device.link() == Link(megabitsPerSecond: 10_000))
  }

  // MARK: - What is refused

  private func refusal(_ model: VirtioModel, mtu: Int = 1500, pairs: Int = 1) -> DeviceError? {
    do {
      _ = try VirtioCard(model, mtu: mtu, pairs: pairs)
      return nil
    } catch { return error as? DeviceError }
  }

  @Test func `a device that goes past the IOMMU is refused`() throws {
    let domain = DMADomain()
    let model = VirtioModel(offering: VirtioModel.usual & ~VirtioModel.platform)
    let error = #expect(throws: DeviceError.self) {
      _ = try VirtioDevice(InProcessDevice(model), domain: domain)
    }
    #expect(error.map(isRefused) == true)
    #expect(model.deviceStatus & 0x80 != 0, "the device was not told that the driver gave up")
  }

  @Test func `more queues than there are are refused`() throws {
    #expect(refusal(VirtioModel(), pairs: 2).map(isRefused) == true)
    let many = VirtioModel(offering: VirtioModel.usual | VirtioModel.multiqueue, pairs: 2)
    #expect(refusal(many, pairs: 3).map(isRefused) == true)
  }

  @Test(arguments: [0, 0x8001, 0xFFFF])
  func `a number of pairs that cannot be is refused`(pairs: Int) throws {
    let model = VirtioModel(offering: VirtioModel.usual | VirtioModel.multiqueue, pairs: 2)
    model.configuration[8] = UInt8(pairs & 0xFF)
    model.configuration[9] = UInt8(pairs >> 8)
    #expect(refusal(model, pairs: 2).map(isRefused) == true)
  }

  @Test func `an MTU that the device does not have is refused`() throws {
    let model = VirtioModel(offering: VirtioModel.usual | VirtioModel.mtu)
    #expect(refusal(model, mtu: 1501).map(isRefused) == true)
    #expect(refusal(model, mtu: 1500) == nil)
  }

  @Test func `features that the device does not take are refused`() throws {
    let model = VirtioModel()
    model.takesFeatures = false
    #expect(refusal(model).map(isRefused) == true)
  }

  @Test func `a modern device without version 1 is refused`() throws {
    let model = VirtioModel(offering: VirtioModel.usual & ~VirtioModel.version1)
    #expect(refusal(model).map(isMisbehaved) == true)
  }

  @Test(arguments: [0, 1, 3, 6, 100, 0x8000, 0xFFFF])
  func `a ring size that cannot be is refused`(size: Int) throws {
    let model = VirtioModel(offering: VirtioModel.usual, queueSize: size)
    #expect(refusal(model).map(isMisbehaved) == (size == 0x8000 ? nil : true))
  }

  @Test func `a device that never ends its reset times out`() throws {
    let model = VirtioModel()
    model.deviceStatus = 15
    model.resets = false
    #expect(refusal(model).map(isTimeout) == true)
  }

  @Test func `a device that is gone says so`() throws {
    let card = try VirtioCard()
    card.model.isUnplugged = true
    #expect { _ = try card.device.link() } throws: { isGone($0) }
    #expect { try card.device.transport.reset(of: "") } throws: { isGone($0) }
  }

  @Test func `a device that needs a reset says so`() throws {
    let card = try VirtioCard()
    card.model.deviceStatus |= 0x40
    #expect { _ = try card.device.link() } throws: { isMisbehaved($0) }
  }

  @Test func `a configuration that never holds still is not waited for`() throws {
    let card = try VirtioCard()
    card.model.generationStep = 1
    #expect { _ = try card.device.link() } throws: { isMisbehaved($0) }
  }

  // MARK: - Capabilities that lie

  /// Offsets in config space: the common structure's capability is at 0x40, the last, notification, at 0x88.
  @Test(arguments: [
    (0x44, 6), (0x44, 0xFF), (0x44, 1), (0x42, 8), (0x4A, 1), (0x4B, 0xFF), (0x48, 1), (0x4D, 0),
    (0x8C, 7), (0x8A, 16), (0x91, 0x40), (0x93, 0x80),
  ])
  func `a structure outside its BAR is not used`(offset: Int, value: UInt8) throws {
    let model = VirtioModel()
    model.config[offset] = value
    #expect(refusal(model).map(isRefused) == true)
  }

  @Test func `a circle of capabilities ends`() throws {
    let model = VirtioModel()
    model.config[0x89] = 0x40
    #expect(refusal(model) == nil)
    model.config[0x41] = 0x40
    #expect(refusal(model).map(isRefused) == true)
  }

  @Test func `the first of two structures of a kind is used`() throws {
    let model = VirtioModel()
    // A fifth capability: common configuration again, somewhere else.
    model.config[0x89] = 0xA0
    model.config.replaceSubrange(
      0xA0..<0xB0, with: [9, 0, 16, 1, 4, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x10, 0, 0])
    #expect(refusal(model) == nil)
  }

  @Test func `a queue that wants to be notified outside the registers is refused`() throws {
    let model = VirtioModel()
    model.config[0x98 + 1] = 0x10  // A multiplier of 0x1004: queue 1 is outside.
    #expect(refusal(model).map(isMisbehaved) == true)
  }
}
