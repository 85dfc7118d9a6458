import Testing

@testable import DriverModels
@testable import Ixy

@Suite struct VirtioSpreadingTests {
  private static let several = VirtioModel.multiqueue | VirtioModel.rss | VirtioModel.hash

  @Test(arguments: RingKind.allCases)
  func `a device with RSS is told key and table`(kind: RingKind) throws {
    let model = VirtioModel(offering: kind.features | Self.several, pairs: 3)
    let card = try VirtioCard(model, pairs: 3, buffers: 512)
    let command = try #require(model.commands.last)
    // Class and command; the six kinds of hash; 128 entries; queue 0 for what has no hash.
    #expect(command.prefix(10) == [4, 1, 0x3F, 0, 0, 0, 127, 0, 0, 0])
    #expect(Array(command[10..<18]) == [0, 0, 1, 0, 2, 0, 0, 0])
    #expect(Array(command[(10 + 256)...]) == [3, 0, 40] + ReceiveSideScaling.publishedKey)
    _ = consume card
  }

  @Test(arguments: RingKind.allCases)
  func `the hash that the device reports is the packet's`(kind: RingKind) throws {
    let model = VirtioModel(offering: kind.features | Self.several, pairs: 2)
    let card = try VirtioCard(model, pairs: 2, buffers: 512)
    #expect(model.headerSize == 20)
    var queue = try card.device.receiveQueue(1, mempool: card.pool)
    var batch = PacketBatch(capacity: 8)
    let chain = try #require(model.take(model.queues[2]))
    model.receive(virtioFrame(1), into: chain, queue: 2, hash: 0x51CC_C178)
    #expect(try queue.receive(into: &batch, max: 8) == 1)
    var hashes: [UInt32] = []
    batch.forEach { hashes.append($0.hash) }
    #expect(hashes == [0x51CC_C178])
    // Both cards of a forwarder have such a header; it is cleared before a frame leaves.
    var transmitter = try card.device.transmitQueue(1)
    #expect(try transmitter.transmit(&batch) == 1)
    #expect(model.sendAll(queue: 3) == [virtioFrame(1)])
  }

  @Test(arguments: [(17, 39), (18, 127), (18, 0)])
  func `a device without room for key and table spreads as it likes`(
    field: Int, value: UInt8
  ) throws {
    let model = VirtioModel(offering: VirtioModel.usual | Self.several, pairs: 2)
    model.configuration[field] = value
    let card = try VirtioCard(model, pairs: 2, buffers: 512)
    #expect(model.commands.last == [4, 0, 2, 0])
    #expect(model.accepted & (VirtioModel.rss | VirtioModel.hash) == 0)
    _ = consume card
  }

  @Test func `one queue needs no RSS`() throws {
    let model = VirtioModel(offering: VirtioModel.usual | Self.several, pairs: 2)
    let card = try VirtioCard(model)
    #expect(model.accepted & Self.several == 0)
    _ = consume card
  }

  @Test func `VLANs that pass are told one by one`() throws {
    var options = VirtioDevice.Options()
    options.filtersVLANs = true
    let card = try VirtioCard(options: options)
    card.model.commands = []
    try card.device.setVLANs([5, 0x123])
    try card.device.setVLANs([6, 5])
    #expect(
      card.model.commands == [
        [2, 0, 5, 0], [2, 0, 0x23, 1], [2, 1, 0x23, 1], [2, 0, 6, 0],
      ])
    card.model.commands = []
    try card.device.setVLANs(nil)
    #expect(card.model.commands.count == 4094)
    #expect { try card.device.setVLANs([4096]) } throws: { isRefused($0) }
  }

  @Test func `a card that does not filter VLANs passes them all`() throws {
    let card = try VirtioCard()
    try card.device.setVLANs(nil)
    #expect { try card.device.setVLANs([1]) } throws: { isRefused($0) }
  }

  @Test func `groups and addresses that cannot be are refused`() throws {
    let card = try VirtioCard()
    card.model.commands = []
    let own = try #require(MACAddress("02:00:00:00:00:01"))
    let group = try #require(MACAddress("01:00:5e:00:00:01"))
    #expect { try card.device.setMulticast([own]) } throws: { isRefused($0) }
    #expect { try card.device.setMACAddress(group) } throws: { isRefused($0) }
    #expect { try card.device.setMACAddress(MACAddress(bits: 0)) } throws: { isRefused($0) }
    #expect(card.model.commands.isEmpty)
    try card.device.setMulticast([group])
    #expect(card.model.commands == [[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0x5E, 0, 0, 1]])
  }
}
