/// A run of packets with a fixed capacity, first in and first out, allocated once and reused.
///
/// It owns its packets: dropped, it gives them back to their mempools. An index or a packet too many traps.
@safe @frozen public struct PacketBatch: ~Copyable {
  @usableFromInline let base: UnsafeMutablePointer<Packet>
  /// The most packets that it can hold.
  public let capacity: Int
  @usableFromInline var head = 0
  @usableFromInline var tail = 0

  /// An empty batch for `capacity` packets.
  @inlinable public init(capacity: Int) {
    precondition(capacity > 0)
    unsafe base = .allocate(capacity: capacity)
    self.capacity = capacity
  }

  @inlinable deinit {
    unsafe (base + head).deinitialize(count: tail &- head)
    unsafe base.deallocate()
  }

  /// The number of packets in it.
  public var count: Int { @inlinable @inline(__always) get { tail &- head } }

  /// Whether there are none.
  public var isEmpty: Bool { @inlinable @inline(__always) get { head == tail } }

  /// Shows each packet to `body`, which may change it.
  @inlinable @inline(__always)
  public mutating func forEach<E: Error>(_ body: (inout Packet) throws(E) -> Void) throws(E) {
    var packet = unsafe base + head
    let end = unsafe base + tail
    while unsafe packet != end {
      try unsafe body(&packet.pointee)
      unsafe packet += 1
    }
  }

  /// Gives every packet that is still here back to its mempool.
  @inlinable @inline(__always) public mutating func removeAll() {
    unsafe (base + head).deinitialize(count: tail &- head)
    head = 0
    tail = 0
  }
}
