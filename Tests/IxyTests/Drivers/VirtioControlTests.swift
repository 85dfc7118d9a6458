import Testing

@testable import DriverModels
@testable import Ixy

@Suite struct VirtioControlTests {
  @Test(arguments: RingKind.allCases)
  func `commands go over the control queue`(kind: RingKind) throws {
    var options = VirtioDevice.Options()
    options.filtersVLANs = true
    let card = try VirtioCard(VirtioModel(offering: kind.features), options: options)
    #expect(card.model.commands == [[0, 0, 0]], "promiscuous mode is off at first")
    card.model.commands = []
    try card.device.setPromiscuous(true)
    try card.device.setAllMulticast(true)
    let address = try #require(MACAddress("02:11:22:33:44:55"))
    let group = try #require(MACAddress("01:00:5e:00:00:01"))
    try card.device.setMACAddress(address)
    try card.device.setFilter(unicast: [address], multicast: [group])
    try card.device.setVLAN(0x123, true)
    try card.device.setVLAN(0x123, false)
    let list: [UInt8] = [
      1, 0, 0, 0, 2, 0x11, 0x22, 0x33, 0x44, 0x55, 1, 0, 0, 0, 1, 0, 0x5E, 0, 0, 1,
    ]
    #expect(
      card.model.commands == [
        [0, 0, 1], [0, 1, 1], [1, 1, 2, 0x11, 0x22, 0x33, 0x44, 0x55], [1, 0] + list,
        [2, 0, 0x23, 1], [2, 1, 0x23, 1],
      ])
    #expect(card.device.macAddress == address)
  }

  @Test(arguments: RingKind.allCases)
  func `hundreds of commands go over the control queue`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    for i in 0..<300 { try card.device.setPromiscuous(i % 2 == 0) }
    #expect(card.model.commands.count == 301)
  }

  @Test(arguments: RingKind.allCases, [1, 2, 0xFF] as [UInt8])
  func `a command that the device refuses is an error`(kind: RingKind, answer: UInt8) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    card.model.controlAnswer = answer
    #expect { try card.device.setPromiscuous(true) } throws: { isRefused($0) }
    card.model.controlAnswer = 0
    try card.device.setPromiscuous(true)
  }

  @Test(arguments: RingKind.allCases)
  func `a command without an answer times out`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    card.model.controlAnswer = nil
    let error = #expect(throws: DeviceError.self) { try card.device.setPromiscuous(true) }
    #expect(error.map(isTimeout) == true)
    // What comes next could be the answer to the first.
    card.model.controlAnswer = 0
    #expect { try card.device.setPromiscuous(true) } throws: { isMisbehaved($0) }
  }

  @Test(arguments: RingKind.allCases)
  func `an answer to something else breaks the control queue`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features))
    card.model.controlIdentifier = 1
    #expect { try card.device.setPromiscuous(true) } throws: { isMisbehaved($0) }
  }

  @Test func `without a control queue there are no commands`() throws {
    let features = VirtioModel.usual & ~VirtioModel.control
    let card = try VirtioCard(VirtioModel(offering: features))
    try card.device.setPromiscuous(true)
    #expect { try card.device.setFilter(unicast: [], multicast: []) } throws: { isRefused($0) }
    #expect { try card.device.setVLAN(1, true) } throws: { isRefused($0) }
    #expect(card.model.notifications[2] == 0)
  }

  @Test func `the address of a legacy device is written to its configuration`() throws {
    let features = VirtioModel.mac | VirtioModel.anyLayout
    let card = try VirtioCard(VirtioModel(.legacy, offering: features))
    try card.device.setMACAddress(#require(MACAddress("02:00:00:00:00:07")))
    #expect(card.model.configuration.prefix(6) == [2, 0, 0, 0, 0, 7])
  }

  @Test(arguments: RingKind.allCases)
  func `each of several queue pairs carries its own frames`(kind: RingKind) throws {
    let model = VirtioModel(offering: kind.features | VirtioModel.multiqueue, pairs: 3)
    let card = try VirtioCard(model, pairs: 3, buffers: 512)
    #expect(model.commands.last == [4, 0, 3, 0])
    #expect(model.queues.allSatisfy { $0.isEnabled })
    // Queue 2 alone, then queue 1 beside it.
    var third = try card.device.receiveQueue(2, mempool: card.pool)
    var second = try card.device.receiveQueue(1, mempool: card.pool)
    var batch = PacketBatch(capacity: 8)
    model.receive(virtioFrame(2), queue: 4)
    model.receive(virtioFrame(1), queue: 2)
    #expect(try third.receive(into: &batch, max: 8) == 1)
    #expect(try second.receive(into: &batch, max: 8) == 1)
    #expect(batch.frames() == [virtioFrame(2), virtioFrame(1)])
    var transmitter = try card.device.transmitQueue(2)
    _ = try transmitter.transmit(&batch)
    #expect(model.sendAll(queue: 1).isEmpty)
    #expect(model.sendAll(queue: 5).count == 2)
    #expect(model.notifications[5] == 1)
  }
}
