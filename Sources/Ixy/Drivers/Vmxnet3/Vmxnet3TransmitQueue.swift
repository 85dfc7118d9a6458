import CIxy
import Glibc

/// A transmit ring of a vmxnet3.
///
/// It owns the packets that it was given until the device has sent them; then their buffers go back to
/// their pools, 32 at a time.
@safe struct Vmxnet3TransmitQueue: ~Copyable {
  /// Where a ring is, in frames counted from the start of the card; a queue that is taken again goes on there.
  struct Position {
    /// The next frame, and the number of those that the device has reported as sent.
    var next = 0
    var sent = 0
    /// The next completion.
    var completion = 0
  }

  private let rings: Vmxnet3Rings
  private let descriptors: UnsafeMutablePointer<Descriptor>
  private let completions: UnsafeMutablePointer<Descriptor>
  /// The buffer of each descriptor and its pool, in memory of our own.
  private let buffers: UnsafeMutablePointer<Buffer>
  private let pools: UnsafeMutablePointer<PoolReference>
  /// The entries of the ring less one, and their number as a power of two.
  private let mask: Int
  private let shift: Int
  private let doorbell: Doorbell
  private let counters: UnsafeMutablePointer<UInt64>
  private var position: Position
  /// The oldest frame whose buffer is not back yet.
  private var clean: Int
  /// The pool of all packets so far, while there is only one: reclaiming is then a block copy.
  private var home: PoolReference?
  private var isMixed = false
  /// The device has reported a frame that it did not have: nothing that it says can be trusted.
  private var isBroken = false
  private let id: Int
  private let device: Vmxnet3Device

  /// Buffers go back in runs of so many, which never wrap.
  @inline(__always) private static var period: Int { 32 }

  /// An empty queue.
  init(
    _ rings: Vmxnet3Rings, _ device: Vmxnet3Device, _ id: Int,
    counters: UnsafeMutablePointer<UInt64>, position: Position
  ) {
    self.rings = rings
    unsafe descriptors = rings.descriptors(0)
    unsafe completions = rings.descriptors(2)
    mask = rings.sizes[0] - 1
    shift = rings.sizes[0].trailingZeroBitCount
    unsafe buffers = .allocate(capacity: mask + 1)
    unsafe pools = .allocate(capacity: mask + 1)
    unsafe self.counters = unsafe counters
    unsafe home = nil
    self.position = position
    clean = position.next
    self.device = device
    self.id = id
    doorbell = Doorbell(device.data, Vmxnet3Register.txprod(id))
  }

  deinit {
    if device.releaseTransmitQueue(id, position: finish()) {
      for use in clean..<position.next { unsafe pools[use & mask].give(buffers[use & mask]) }
    }
    unsafe buffers.deallocate()
    unsafe pools.deallocate()
  }

  /// Waits a second at most for the device to send all; nil when it does not.
  private func finish() -> Position? {
    var position = position
    for _ in 0..<1000 {
      guard !isBroken, let now = looked(from: position) else { return nil }
      position = now
      if position.sent == position.next { return position }
      if !device.isActive { return nil }
      usleep(1000)
    }
    return nil
  }

  /// Takes in what the device has reported as sent; nil when that cannot be.
  @inline(__always) private func looked(from position: Position) -> Position? {
    var position = position
    while true {
      let bit = Vmxnet3Generation.bit(of: position.completion, shift: shift)
      let completion = unsafe completions.completion(position.completion & mask, bit)
      guard let (low, _) = completion else { return position }
      let i = Vmxnet3TransmitDescriptor.index(low)
      // It stands for all frames before it, too: as many as it has at most.
      let sent = position.sent &+ ((i &- position.sent) & mask) &+ 1
      if i > mask || sent > position.next { return nil }
      position.sent = sent
      position.completion &+= 1
    }
  }

  /// The number of packets that fit before the ring wraps; one descriptor stays free.
  @inline(__always) private var run: Int {
    min(mask &- (position.next &- clean), mask &+ 1 &- position.next & mask)
  }

  /// A copy of what it takes to write descriptors: in a loop, nothing is loaded again.
  @safe private struct Writer {
    let descriptors: UnsafeMutablePointer<Descriptor>
    let buffers: UnsafeMutablePointer<Buffer>
    let pools: UnsafeMutablePointer<PoolReference>
    let home: PoolReference
    /// What all descriptors of the run have in their second word.
    let word: UInt64
    var count = 0
    var bytes = 0
    /// Other than 0 when a packet is not of the pool `home`.
    var foreign: UInt = 0

    /// - Parameters:
    ///   - queue: Its next descriptors are written, up to where the ring wraps.
    ///   - pool: The home of a queue that has none yet.
    @inline(__always)
    init(_ queue: borrowing Vmxnet3TransmitQueue, _ pool: PoolReference) {
      let (use, i) = (queue.position.next, queue.position.next & queue.mask)
      unsafe (descriptors, buffers) = (queue.descriptors + i, queue.buffers + i)
      unsafe (pools, home) = (queue.pools + i, queue.home ?? pool)
      word = Vmxnet3TransmitDescriptor.frame(at: use, shift: queue.shift)
    }

    /// Writes the next descriptor, which must be free, and notes whose buffer it has; the device may send it at
    /// once.
    @inline(__always) mutating func put(_ packet: consuming Packet, flags: UInt64 = 0) {
      let (buffer, pool, length) = unsafe packet.disown()
      foreign |= unsafe UInt(bitPattern: pool) ^ UInt(bitPattern: home)
      unsafe buffers[count] = unsafe buffer
      unsafe pools[count] = unsafe pool
      unsafe descriptors[count].low = unsafe pool.iova(buffer)
      unsafe descriptors.publish(
        count, word &+ Vmxnet3TransmitDescriptor.length(length) &+ flags)
      bytes &+= Int(length)
      count &+= 1
    }
  }

  /// Tells the device of the descriptors that `writer` has written.
  @inline(__always) private mutating func commit(_ writer: Writer) {
    unsafe counters.count(writer.count)
    unsafe (counters + 1).count(writer.bytes)
    position.next &+= writer.count
    unsafe home = writer.home
    if writer.foreign != 0 { isMixed = true }
    doorbell.ring(position.next & mask)
  }

  /// Gives the buffers of each run of 32 frames that are sent back.
  @inline(__always) private mutating func cleanUp() throws(DeviceError) {
    guard !isBroken, let now = looked(from: position) else {
      isBroken = true
      throw device.brokenRing("transmit", id)
    }
    try device.checkActive(id)
    position = now
    // A queue that was taken again may begin in the middle of a run.
    while true {
      let end = (clean | (Self.period - 1)) &+ 1
      if end > position.sent { return }
      let first = clean & mask
      if !isMixed, let home = unsafe home {
        let top = unsafe home.pointee.top
        unsafe (home.pointee.stack + top).update(from: buffers + first, count: end &- clean)
        unsafe home.pointee.top = top &+ (end &- clean)
      } else {
        for i in first..<(first &+ (end &- clean)) { unsafe pools[i].give(buffers[i]) }
      }
      clean = end
    }
  }
}

extension Vmxnet3TransmitQueue: TransmitQueue {
  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  ///
  /// - Throws: When the device reports a frame as sent that it did not have, or the card was stopped because
  ///   another queue was dropped.
  mutating func transmit(_ batch: inout PacketBatch) throws(DeviceError) -> Int {
    try cleanUp()
    let start = batch.head
    repeat {
      let count = min(batch.count, run)
      if count <= 0 { break }
      var packet = unsafe batch.base + batch.head
      let last = unsafe packet + (count &- 1)
      var writer = unsafe Writer(self, packet.pointee.pool)
      while unsafe packet != last {
        unsafe writer.put(packet.move())
        unsafe packet += 1
      }
      // One completion is enough for all of them.
      unsafe writer.put(packet.move(), flags: Vmxnet3TransmitDescriptor.completion)
      batch.head &+= count
      commit(writer)
    } while !batch.isEmpty
    return batch.head &- start
  }

  /// Sends one packet, or hands it back when the ring is full.
  mutating func transmit(_ packet: consuming Packet) throws(DeviceError) -> Packet? {
    try cleanUp()
    if run == 0 { return packet }
    var writer = unsafe Writer(self, packet.pool)
    writer.put(packet, flags: Vmxnet3TransmitDescriptor.completion)
    commit(writer)
    return nil
  }

  /// Gives the buffers of packets that are sent back to their mempools, as far as that is known.
  ///
  /// - Returns: The number of packets that the device has not reported as sent yet.
  mutating func reclaim() throws(DeviceError) -> Int {
    try cleanUp()
    return device.isActive ? position.next &- position.sent : 0
  }
}
