import Synchronization

/// Where one thread puts packets into a `PacketRing`.
@safe public struct PacketSender: ~Copyable {
  private let ring: PacketRing
  /// For one sender: the number of packets put in, and what its receiver had taken out when last looked at.
  private var next: Int
  private var taken: Int

  init(_ ring: PacketRing) {
    self.ring = ring
    next = unsafe ring.tail.pointee.load(ordering: .acquiring)
    taken = unsafe ring.head.pointee.load(ordering: .acquiring)
  }

  deinit { ring.senderEnded() }

  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  ///
  /// All must come from parts of the ring's pool.
  ///
  /// - Parameter batch: The packets.
  /// - Returns: The number of packets taken.
  @discardableResult public mutating func send(_ batch: inout PacketBatch) -> Int {
    guard let turns = unsafe ring.turns else { return sendAlone(&batch) }
    let (first, count) = unsafe ring.reserve(
      ring.tail, isShared: ring.senders == .many, turns, turn: 0, batch.count)
    move(&batch, count, to: first)
    for i in first..<(first &+ count) {
      unsafe turns[i & (ring.capacity &- 1)].store(i &+ 1, ordering: .releasing)
    }
    return count
  }

  private mutating func sendAlone(_ batch: inout PacketBatch) -> Int {
    if ring.capacity &- (next &- taken) < batch.count {
      taken = unsafe ring.head.pointee.load(ordering: .acquiring)
    }
    let count = min(batch.count, ring.capacity &- (next &- taken))
    if count == 0 { return 0 }
    move(&batch, count, to: next)
    next &+= count
    unsafe ring.tail.pointee.store(next, ordering: .releasing)
    return count
  }

  /// Moves packets from the front of a batch into slots, and out of the books of the parts that they come from.
  private func move(_ batch: inout PacketBatch, _ count: Int, to first: Int) {
    let (slots, mask) = unsafe (ring.slots, ring.capacity &- 1)
    var packet = unsafe batch.base + batch.head
    var home: PoolReference?
    var run = 0
    for i in first..<(first &+ count) {
      let hash = unsafe packet.pointee.hash
      let (buffer, pool, length) = unsafe packet.move().disown()
      unsafe packet += 1
      if unsafe pool != home {
        unsafe leave(home, run)
        unsafe home = unsafe pool
        run = 0
      }
      run &+= 1
      unsafe (slots + (i & mask)).initialize(
        to: PacketRing.Slot(buffer: buffer, length: length, hash: hash))
    }
    unsafe leave(home, run)
    batch.head &+= count
  }

  /// So many buffers have left a part.
  @inline(__always) private func leave(_ pool: PoolReference?, _ count: Int) {
    guard let pool = unsafe pool else { return }
    guard let part = unsafe pool.pointee.part?._withUnsafeGuaranteedRef({ $0 }) else {
      preconditionFailure("a packet of a mempool that is not shared")
    }
    let home = unsafe unsafeDowncast(part, to: MempoolPart.self)
    precondition(home.shared === ring.pool, "a packet of another mempool than the ring's")
    unsafe home.state.pointee.capacity &-= count
  }
}

/// Where one thread takes packets out of a `PacketRing`; they belong to its part of the pool then.
@safe public struct PacketReceiver: ~Copyable {
  private let ring: PacketRing
  private let part: MempoolPart
  /// For one receiver: the number of packets taken out, and what its sender had put in when last looked at.
  private var next: Int
  private var filled: Int

  init(_ ring: PacketRing, _ part: MempoolPart) {
    self.ring = ring
    self.part = part
    next = unsafe ring.head.pointee.load(ordering: .acquiring)
    filled = unsafe ring.tail.pointee.load(ordering: .acquiring)
  }

  deinit { ring.receiverEnded() }

  /// Appends up to `max` packets to `batch`, as far as it has room.
  ///
  /// Never blocks.
  ///
  /// - Parameters:
  ///   - batch: Where they go.
  ///   - max: The most packets to take.
  /// - Returns: The number of packets appended.
  @discardableResult
  public mutating func receive(into batch: inout PacketBatch, max: Int = .max) -> Int {
    // The packets adopted before are free by now, or sent: where they pile up, others may want them.
    part.relieve()
    if batch.isEmpty { batch.removeAll() }
    let wanted = min(max, batch.capacity &- batch.tail)
    if wanted <= 0 { return 0 }
    guard let turns = unsafe ring.turns else { return receiveAlone(into: &batch, wanted) }
    let (first, count) = unsafe ring.reserve(
      ring.head, isShared: ring.receivers == .many, turns, turn: 1, wanted)
    adopt(first, count, into: &batch)
    for i in first..<(first &+ count) {
      unsafe turns[i & (ring.capacity &- 1)].store(i &+ ring.capacity, ordering: .releasing)
    }
    return count
  }

  private mutating func receiveAlone(into batch: inout PacketBatch, _ wanted: Int) -> Int {
    if filled &- next < wanted { filled = unsafe ring.tail.pointee.load(ordering: .acquiring) }
    let count = min(wanted, filled &- next)
    if count == 0 { return 0 }
    adopt(next, count, into: &batch)
    next &+= count
    unsafe ring.head.pointee.store(next, ordering: .releasing)
    return count
  }

  /// Makes packets of this thread's part from slots.
  private func adopt(_ first: Int, _ count: Int, into batch: inout PacketBatch) {
    let (slots, mask, pool) = unsafe (ring.slots, ring.capacity &- 1, part.state)
    var packet = unsafe batch.base + batch.tail
    for i in first..<(first &+ count) {
      let slot = unsafe slots[i & mask]
      unsafe packet.initialize(
        to: Packet(buffer: slot.buffer, pool: pool, length: slot.length, hash: slot.hash))
      unsafe packet += 1
    }
    batch.tail &+= count
    unsafe part.state.pointee.capacity &+= count
  }
}
