import CIxy
import Glibc

private typealias Field = VirtioNetConfiguration

extension VirtioDevice: EthernetDevice {
  /// How messages name the card.
  public var name: String { pci.name }
  /// The driver's name: "virtio".
  public var driverName: String { "virtio" }
  /// The receive and the transmit queues that were asked for.
  public var queueCounts: (receive: Int, transmit: Int) {
    (configuration.receiveQueues, configuration.transmitQueues)
  }

  /// Sets receive queue `id` up and moves it to the caller.
  public func receiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> any ReceiveQueue & ~Copyable
  {
    if hasPackedRings { return try takePackedReceiveQueue(id, mempool: mempool) }
    return try takeSplitReceiveQueue(id, mempool: mempool)
  }

  /// Sets transmit queue `id` up and moves it to the caller.
  public func transmitQueue(_ id: Int) throws(DeviceError) -> any TransmitQueue & ~Copyable {
    if hasPackedRings { return try takePackedTransmitQueue(id) }
    return try takeSplitTransmitQueue(id)
  }

  /// Sets receive queue `id` with a split ring up and moves it to the caller, its one owner.
  ///
  /// - Parameters:
  ///   - id: 0 up to the number of receive queues, each once.
  ///   - mempool: Where buffers come from; it belongs to the same thread as the queue.
  /// - Returns: The queue, receiving.
  /// - Throws: When the pool is too small, the queue is taken, or rings are packed.
  public func takeSplitReceiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> VirtioSplitReceiveQueue
  {
    let setup = try take(2 * id, packed: false, mempool: mempool)
    return VirtioSplitReceiveQueue(setup, mempool: mempool, large: try largePool(mempool))
  }

  /// Sets transmit queue `id` with a split ring up and moves it to the caller, its one owner.
  ///
  /// - Parameter id: 0 up to the number of transmit queues, each once.
  /// - Returns: The queue, empty.
  /// - Throws: When the queue is taken, or rings are packed.
  public func takeSplitTransmitQueue(_ id: Int) throws(DeviceError) -> VirtioSplitTransmitQueue {
    VirtioSplitTransmitQueue(try take(2 * id + 1, packed: false))
  }

  /// Sets receive queue `id` with a packed ring up and moves it to the caller, its one owner.
  ///
  /// - Parameters:
  ///   - id: 0 up to the number of receive queues, each once.
  ///   - mempool: Where buffers come from; it belongs to the same thread as the queue.
  /// - Returns: The queue, receiving.
  /// - Throws: When the pool is too small, the queue is taken, or rings are split.
  public func takePackedReceiveQueue(_ id: Int, mempool: Mempool) throws(DeviceError)
    -> VirtioPackedReceiveQueue
  {
    let setup = try take(2 * id, packed: true, mempool: mempool)
    return VirtioPackedReceiveQueue(setup, mempool: mempool, large: try largePool(mempool))
  }

  /// Sets transmit queue `id` with a packed ring up and moves it to the caller, its one owner.
  ///
  /// - Parameter id: 0 up to the number of transmit queues, each once.
  /// - Returns: The queue, empty.
  /// - Throws: When the queue is taken, or rings are split.
  public func takePackedTransmitQueue(_ id: Int) throws(DeviceError) -> VirtioPackedTransmitQueue {
    VirtioPackedTransmitQueue(try take(2 * id + 1, packed: true))
  }

  /// Where a receive queue puts frames together that do not fit the buffers of its own pool.
  func largePool(_ mempool: Mempool) throws(DeviceError) -> Mempool {
    if mempool.bufferSize >= configuration.maximumFrame { return mempool }
    return try Mempool(
      domain: domain, buffers: configuration.ringEntries, bufferSize: configuration.bufferSize)
  }
}

// MARK: - What the device says and is told

extension VirtioDevice {
  /// Several fields of the configuration, as they were at one moment.
  private func consistent<T>(_ read: () -> T) throws(DeviceError) -> T {
    for _ in 0..<100 {
      let generation = transport.generation
      let value = read()
      if transport.generation == generation { return value }
    }
    throw .misbehaved(device: name, "its configuration never stays the same")
  }

  /// The card's own address; one at random where it has none.
  func readAddress() throws(DeviceError) {
    if features.contains(.mac) {
      let bytes = try consistent {
        (0..<6).map { transport.configuration(VirtioField(Field.mac + $0, 1)) }
      }
      macAddress = MACAddress(bits: bytes.reduce(0) { $0 << 8 | $1 })
      if macAddress.bits != 0, !macAddress.isMulticast { return }
    }
    // Bit 1 of the first byte: given locally.
    let random = UInt64.random(in: 0..<1 << 40)
    try setMACAddress(MACAddress(bits: 0x02 << 40 | random))
  }

  /// Only frames for this card, and on as many queues as there are.
  func resetFilters() throws(DeviceError) {
    try setPromiscuous(false)
    if features.contains(.multiqueue) { try control?.send(.pairs(configuration.pairs)) }
  }

  /// Whether there is a link, and how fast.
  ///
  /// A device that does not say has a link; one that has no speed is taken for 10 Gbit/s.
  public func link() throws(DeviceError) -> Link {
    let status = transport.status
    if status == .gone { throw .gone(device: name) }
    if status.contains(.needsReset) {
      throw .misbehaved(device: name, "it says that it needs a reset")
    }
    let (state, speed) = try consistent {
      (transport.configuration(Field.status), transport.configuration(Field.speed))
    }
    if features.contains(.linkStatus), state & 1 == 0 { return Link(megabitsPerSecond: 0) }
    let isKnown = features.contains(.speed) && 1...0x7FFF_FFFF ~= speed
    return Link(megabitsPerSecond: isKnown ? Int(speed) : 10_000)
  }

  /// Receives every frame on the wire, or only those for this card.
  ///
  /// A device without this command decides alone; such devices pass everything.
  public func setPromiscuous(_ on: Bool) throws(DeviceError) {
    if features.contains(.controlReceive) { try control?.send(.promiscuous(on)) }
  }

  /// Receives all multicast frames, or only those that pass the filter.
  public func setAllMulticast(_ on: Bool) throws(DeviceError) {
    if features.contains(.controlReceive) { try control?.send(.allMulticast(on)) }
  }

  /// Receives frames for these addresses, too: at most 64 of each kind.
  ///
  /// - Throws: `DeviceError.refused` when the device has no such filter, or there are too many.
  public func setFilter(unicast: [MACAddress], multicast: [MACAddress]) throws(DeviceError) {
    guard features.contains(.controlReceive), max(unicast.count, multicast.count) <= 64 else {
      throw .refused(
        "Filter addresses on \(name)", found: "the device has no filter for so many",
        advice: "Use promiscuous mode.")
    }
    try control?.send(.filter(unicast: unicast, multicast: multicast))
  }

  /// Gives the card another address.
  ///
  /// - Throws: `DeviceError.refused` when a modern device offers no command for it.
  public func setMACAddress(_ address: MACAddress) throws(DeviceError) {
    if features.contains(.controlMAC) {
      try control?.send(.setAddress(address))
    } else if !transport.isModern {
      for i in 0..<6 { transport.setConfiguration(address[i], at: Field.mac + i) }
    } else if features.contains(.mac) {
      throw .refused(
        "Set the address of \(name)", found: "the device offers no command for it",
        advice: "Set it where the device is made; in QEMU: mac=.")
    }
    // A device that has none does not filter by it: it is ours alone.
    macAddress = address
  }

  /// Lets frames of a VLAN pass, or not any more; the card was opened with `filtersVLANs`.
  public func setVLAN(_ id: UInt16, _ passes: Bool) throws(DeviceError) {
    guard features.contains(.controlVLAN), id < 4096 else {
      throw .refused(
        "Filter VLAN \(id) on \(name)",
        found: "the device was not asked for it, or has no such filter",
        advice: "Open it with filtersVLANs. VLANs are 0 to 4095.")
    }
    try control?.send(passes ? .addVLAN(id) : .removeVLAN(id))
  }

  /// Everything counted since the card was opened, by the queues; the device tells nothing.
  public func statistics() -> Statistics {
    var sum = Statistics()
    for id in 0..<configuration.receiveQueues {
      let queue = unsafe counters(of: 2 * id)
      unsafe sum.receivedPackets += ixy_load64(queue)
      unsafe sum.receivedBytes += ixy_load64(queue + 1)
      unsafe sum.receiveErrors += ixy_load64(queue + 2)
    }
    for id in 0..<configuration.transmitQueues {
      let queue = unsafe counters(of: 2 * id + 1)
      unsafe sum.transmittedPackets += ixy_load64(queue)
      unsafe sum.transmittedBytes += ixy_load64(queue + 1)
    }
    return sum
  }
}
