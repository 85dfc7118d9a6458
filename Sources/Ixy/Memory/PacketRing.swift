import Synchronization

/// Hands packets over from one thread to another: bounded, first in and first out, without a lock.
///
/// It is the one way for a packet between threads that each use a part of the same `SharedMempool`. What a
/// `PacketSender` takes is nobody's on its way; the `PacketReceiver` adopts it into the part of its own thread.
///
/// ```swift
/// let ring = PacketRing(of: pool, capacity: 1024)
/// var sender = ring.sender()                    // for one thread
/// var receiver = ring.receiver(into: part)      // for another one, with its part of the pool
/// ```
@safe public final class PacketRing: @unchecked Sendable {
  /// How many threads put packets in, or take them out.
  public enum Threads: Sendable {
    /// One at a time: its end can be taken again when it was dropped.
    case one
    /// Any number.
    case many
  }

  /// A packet between two threads.
  @unsafe struct Slot {
    let buffer: Buffer
    let length: UInt32
    let hash: UInt32
  }

  /// Where packets come from and go to.
  public let pool: SharedMempool
  /// The most packets that it holds.
  public let capacity: Int
  let senders: Threads
  let receivers: Threads
  let slots: UnsafeMutablePointer<Slot>
  /// Of many senders or receivers: what each slot waits for, packet n (n) or its receiver (n + 1).
  let turns: UnsafeMutablePointer<Atomic<Int>>?
  /// The number of packets that were put in, and of those taken out, on cache lines of their own.
  private let ends: UnsafeMutableRawPointer
  private let hasSender = Atomic(false)
  private let hasReceiver = Atomic(false)

  /// An empty ring for packets of one pool.
  ///
  /// - Parameters:
  ///   - pool: The pool; packets of others do not go through.
  ///   - capacity: The most packets that it holds, a power of two from 2.
  ///   - senders: How many threads put packets in.
  ///   - receivers: How many take them out.
  public init(
    of pool: SharedMempool, capacity: Int = 1024, senders: Threads = .one, receivers: Threads = .one
  ) {
    precondition(capacity > 1 && capacity & (capacity - 1) == 0, "not a power of two from 2")
    self.pool = pool
    self.capacity = capacity
    self.senders = senders
    self.receivers = receivers
    unsafe slots = .allocate(capacity: capacity)
    unsafe ends = .allocate(byteCount: 256, alignment: 128)
    let isSimple = senders == .one && receivers == .one
    unsafe turns = isSimple ? nil : .allocate(capacity: capacity)
    for i in 0..<capacity { unsafe turns.map { unsafe ($0 + i).initialize(to: Atomic(i)) } }
    unsafe tail.initialize(to: Atomic(0))
    unsafe head.initialize(to: Atomic(0))
  }

  deinit {
    // No end is left: what is between them goes back.
    let (first, end) = unsafe (
      head.pointee.load(ordering: .acquiring), tail.pointee.load(ordering: .acquiring)
    )
    for i in first..<end {
      var buffer = unsafe slots[i & (capacity - 1)].buffer
      while unsafe !pool.store.give(&buffer, count: 1) {}
    }
    unsafe slots.deallocate()
    unsafe turns?.deallocate()
    unsafe ends.deallocate()
  }

  /// The number of packets put in.
  var tail: UnsafeMutablePointer<Atomic<Int>> {
    @inline(__always) get { unsafe ends.assumingMemoryBound(to: Atomic<Int>.self) }
  }
  /// The number of packets taken out.
  var head: UnsafeMutablePointer<Atomic<Int>> {
    @inline(__always) get { unsafe (ends + 128).assumingMemoryBound(to: Atomic<Int>.self) }
  }

  /// The packets in it, while it may change: for displays.
  public var count: Int {
    let head = unsafe head.pointee.load(ordering: .relaxed)
    return unsafe max(0, min(capacity, tail.pointee.load(ordering: .relaxed) &- head))
  }

  /// The end where one thread puts packets in.
  ///
  /// With `.one`, there is only one at a time; a second traps.
  public func sender() -> PacketSender {
    if senders == .one {
      let isTaken = hasSender.exchange(true, ordering: .acquiringAndReleasing)
      precondition(!isTaken, "a ring for one sender has one already")
    }
    return PacketSender(self)
  }

  /// The end where one thread takes packets out, into its part of the pool.
  ///
  /// With `.one`, there is only one at a time; a second traps, and so does a part of another pool.
  public func receiver(into part: Mempool) -> PacketReceiver {
    guard let part = part as? MempoolPart, part.shared === pool else {
      preconditionFailure("a mempool that is no part of the ring's")
    }
    if receivers == .one {
      let isTaken = hasReceiver.exchange(true, ordering: .acquiringAndReleasing)
      precondition(!isTaken, "a ring for one receiver has one already")
    }
    return PacketReceiver(self, part)
  }

  func senderEnded() { hasSender.store(false, ordering: .releasing) }
  func receiverEnded() { hasReceiver.store(false, ordering: .releasing) }

  // MARK: - Many on a side

  /// Reserves up to `wanted` slots, of those that come next, which are at their turn.
  ///
  /// - Parameters:
  ///   - end: The number of packets put in, or taken out.
  ///   - isShared: Whether other threads do the same.
  ///   - turns: What the slots wait for.
  ///   - turn: What a slot must wait for, less the packet's number: 0 for senders, 1 for receivers.
  ///   - wanted: The most slots.
  /// - Returns: The number of the first packet, and how many; the slots are the caller's until it moves them on.
  @inline(__always) func reserve(
    _ end: UnsafeMutablePointer<Atomic<Int>>, isShared: Bool,
    _ turns: UnsafeMutablePointer<Atomic<Int>>, turn: Int, _ wanted: Int
  ) -> (first: Int, count: Int) {
    var first = unsafe end.pointee.load(ordering: .relaxed)
    while true {
      var count = 0
      while count < wanted,
        unsafe turns[(first &+ count) & (capacity &- 1)].load(ordering: .acquiring)
          == first &+ count &+ turn
      { count &+= 1 }
      if count == 0 {
        let now = unsafe end.pointee.load(ordering: .relaxed)
        if now == first { return (first, 0) }
        first = now
        continue
      }
      if !isShared {
        unsafe end.pointee.store(first &+ count, ordering: .relaxed)
        return (first, count)
      }
      let (isOurs, now) = unsafe end.pointee.weakCompareExchange(
        expected: first, desired: first &+ count, ordering: .relaxed)
      if isOurs { return (first, count) }
      first = now
    }
  }
}
