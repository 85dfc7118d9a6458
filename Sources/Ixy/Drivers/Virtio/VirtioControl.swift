private typealias Field = VirtioNetConfiguration

extension VirtioDevice: EthernetDevice, @unchecked Sendable {
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
    // Before the queue is taken: without memory for it, nothing has happened.
    let large = try largePool(mempool)
    let setup = try take(2 * id, packed: false, mempool: mempool)
    return VirtioSplitReceiveQueue(setup, mempool: mempool, large: large)
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
    // Before the queue is taken: without memory for it, nothing has happened.
    let large = try largePool(mempool)
    let setup = try take(2 * id, packed: true, mempool: mempool)
    return VirtioPackedReceiveQueue(setup, mempool: mempool, large: large)
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
    if unsafe mempool.state.pointee.part != nil {
      throw .refused(
        "Receive from \(name) with a part of a shared mempool",
        found: "its buffers of \(mempool.bufferSize) bytes are too small for one frame of the MTU",
        advice: "Make the shared mempool with buffers of \(configuration.bufferSize) bytes.")
    }
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
    guard features.contains(.multiqueue) else { return }
    // Without a table the device spreads frames as it likes: often each flow goes where its answers come from.
    let spreading = VirtioSpreading(queues: configuration.receiveQueues, transport)
    try control?.send(features.contains(.rss) ? .spread(spreading) : .pairs(configuration.pairs))
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

  /// What a receive queue has counted.
  public func receiveStatistics(_ id: Int) -> QueueStatistics {
    precondition(0..<configuration.receiveQueues ~= id, "a queue that was not asked for")
    return unsafe QueueStatistics(counters(of: 2 * id))
  }

  /// What a transmit queue has counted.
  public func transmitStatistics(_ id: Int) -> QueueStatistics {
    precondition(0..<configuration.transmitQueues ~= id, "a queue that was not asked for")
    return unsafe QueueStatistics(counters(of: 2 * id + 1))
  }

  /// Everything counted since the card was opened, by the queues; the device tells nothing.
  public func statistics() -> Statistics {
    var sum = Statistics()
    for id in 0..<configuration.receiveQueues {
      sum.add(received: receiveStatistics(id))
    }
    for id in 0..<configuration.transmitQueues {
      sum.add(transmitted: transmitStatistics(id))
    }
    return sum
  }
}
