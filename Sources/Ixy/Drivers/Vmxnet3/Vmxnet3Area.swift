private typealias Shared = Vmxnet3Shared

/// Where the parts of the memory that driver and device share begin: the shared area itself comes first.
enum Vmxnet3Area {
  static let rss = 1024, groups = 2048, queues = 8192, size = 12288
  /// The most multicast groups: 6 bytes each.
  static let largestGroups = (queues - groups) / 6
}

extension Vmxnet3Device {
  /// How interrupts are set up.
  struct InterruptSetUp {
    /// Whether there are any.
    var isOn = false
    /// One vector for everything, and not one for each receive queue, the link, and what nobody asks for.
    var isShared = true
    /// Whether the device may hold them back for a while.
    var isModerated = false
  }

  /// Which frames are received.
  struct Filter {
    var address = MACAddress(bits: 0)
    var mode: Vmxnet3Shared.ReceiveMode = [.unicast, .broadcast]
    var groups: [MACAddress] = []
    var vlans = [UInt32](repeating: .max, count: 128)
  }

  /// Writes all that the device reads when it is activated.
  func describe(in area: Vmxnet3Memory) {
    describeDriver(in: area)
    describeInterrupts(in: area)
    describeQueues(in: area)
    describeFilter(in: area)
    if configuration.receiveQueues > 1 { describeRSS(in: area) }
  }

  private func describeDriver(in area: Vmxnet3Memory) {
    area[word: Shared.magic] = Shared.magicValue
    area[word: Shared.driverVersion] = 1
    area[word: Shared.guest] = Shared.guestValue
    area[word: Shared.revision] = 1
    area[word: Shared.uptVersion] = 1
    area[word: Shared.mtu] = UInt32(configuration.mtu)
    // Each frame fits into one buffer.
    area[half: Shared.maximumBuffers] = 1
  }

  private func describeInterrupts(in area: Vmxnet3Memory) {
    let queues = configuration.receiveQueues
    let count = interrupts.isShared ? 1 : queues + 2
    area[byte: Shared.autoMask] = 1
    area[byte: Shared.vectors] = UInt8(count)
    area[byte: Shared.eventVector] = interrupts.isShared ? 0 : UInt8(queues)
    // 8 lets the device choose how long it waits, 0 is not at all.
    for i in 0..<count { area[byte: Shared.moderation + i] = interrupts.isModerated ? 8 : 0 }
    area[word: Shared.interruptControl] = interrupts.isOn ? 0 : 1
  }

  private func describeQueues(in area: Vmxnet3Memory) {
    let all = transmitRings + receiveRings
    area[byte: Shared.transmitQueues] = UInt8(transmitRings.count)
    area[byte: Shared.receiveQueues] = UInt8(receiveRings.count)
    area[long: Shared.queuesAddress] = area.address + UInt64(Vmxnet3Area.queues)
    area[word: Shared.queuesLength] = UInt32(Vmxnet3Queue.size * all.count)
    for (i, rings) in all.enumerated() {
      let queue = Vmxnet3Area.queues + Vmxnet3Queue.size * i
      for part in 0..<3 {
        area[long: queue + Vmxnet3Queue.rings[part]] = rings.parts[part].address
        area[word: queue + Vmxnet3Queue.sizes[part]] = UInt32(rings.sizes[part])
      }
      let id = i - transmitRings.count
      // Sent frames interrupt nobody: their vector stays masked.
      let vector = id < 0 ? configuration.receiveQueues + 1 : id
      area[byte: queue + Vmxnet3Queue.vector] = interrupts.isShared ? 0 : UInt8(vector)
    }
  }

  func describeFilter(in area: Vmxnet3Memory) {
    area[word: Shared.receiveMode] = filter.mode.rawValue
    area[half: Shared.groupsLength] = UInt16(6 * filter.groups.count)
    area[long: Shared.groupsAddress] = area.address + UInt64(Vmxnet3Area.groups)
    for (n, group) in filter.groups.enumerated() {
      for i in 0..<6 { area[byte: Vmxnet3Area.groups + 6 * n + i] = group[i] }
    }
    for (i, word) in filter.vlans.enumerated() { area[word: Shared.vlans + 4 * i] = word }
  }

  /// Spreads frames over all receive queues by their addresses and, with TCP, ports.
  private func describeRSS(in area: Vmxnet3Memory) {
    area[long: Shared.features] = Shared.rssFeature
    area[word: Shared.rssVersion] = 1
    area[word: Shared.rssLength] = UInt32(Vmxnet3RSS.size)
    area[long: Shared.rssAddress] = area.address + UInt64(Vmxnet3Area.rss)
    let table = scaling.tableWords { UInt8($0) }
    let start = Vmxnet3Area.rss
    area[half: start + Vmxnet3RSS.types] = Vmxnet3RSS.types(scaling.fields)
    area[half: start + Vmxnet3RSS.function] = Vmxnet3RSS.toeplitz
    area[half: start + Vmxnet3RSS.keyLength] = UInt16(scaling.key.count)
    area[half: start + Vmxnet3RSS.tableLength] = UInt16(4 * table.count)
    for (i, byte) in scaling.key.enumerated() { area[byte: start + Vmxnet3RSS.key + i] = byte }
    for (i, word) in table.enumerated() { area[word: start + Vmxnet3RSS.table + 4 * i] = word }
  }

  // MARK: - What the device writes

  /// Where the description of a receive queue begins.
  private func description(receive id: Int) -> Int {
    Vmxnet3Area.queues + Vmxnet3Queue.size * (configuration.transmitQueues + id)
  }

  /// The byte that says whether the device wants to hear of new receive buffers; else it looks for itself.
  func doorbellWish(_ id: Int, in area: Vmxnet3Memory) -> UnsafeRawPointer {
    let offset = description(receive: id) + Vmxnet3Queue.wantsDoorbell
    return unsafe UnsafeRawPointer(area.base + offset)
  }

  /// Frames that found no buffer, of all receive queues; the lock is held, and the device active.
  func droppedSinceActivation() -> UInt64 {
    guard let area else { return 0 }
    give(.getStatistics)
    return (0..<configuration.receiveQueues).reduce(0) { sum, id in
      sum &+ area[long: description(receive: id) + Vmxnet3Queue.outOfBuffers]
    }
  }
}
