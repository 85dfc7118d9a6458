import CIxy

/// What the rings of gigabit cards want of their card.
protocol GigabitDevice: AnyObject {
  var bar: BAR { get }
  var configuration: DeviceConfiguration { get }
  /// Stops a ring whose queue is dropped; false when its memory must stay.
  func stopReceiveRing(_ id: Int) -> Bool
  /// Stops a ring whose queue is dropped; false when its memory must stay.
  func stopTransmitRing(_ id: Int) -> Bool
}

/// The second half of a transmit descriptor, which differs between the cards.
struct GigabitTransmitCommand {
  /// RS: the device sets DD when the frame is sent.
  static let reportStatus: UInt64 = 1 << 27
  /// DD, in STA.
  static let done: UInt64 = 1 << 32

  /// All but the length.
  let base: UInt64
  /// A bit at each place where the length is.
  let lengths: UInt64
}

/// A transmit ring of a gigabit card: the 82574's and the 82576's differ in a descriptor's command only.
///
/// It owns the packets that it was given until the device has sent them; then their buffers go back to
/// their pools, 32 at a time.
@safe struct GigabitTransmitQueue: ~Copyable {
  let ring: DescriptorRing
  private let doorbell: Doorbell
  private let counters: UnsafeMutablePointer<UInt64>
  private let command: GigabitTransmitCommand
  private let head: Register<UInt32>
  /// The next free descriptor.
  private var next = 0
  /// The oldest descriptor whose buffer is not back yet; a multiple of 32.
  private var clean = 0
  /// The pool of all packets so far, while there is only one: reclaiming is then a block copy.
  private var home: PoolReference?
  private var isMixed = false
  private let id: Int
  private let device: any GigabitDevice

  /// The device reports the last of so many descriptors, and they are reclaimed together.
  @inline(__always) private static var period: Int { 32 }

  /// An empty queue; the device is not told yet.
  init(
    _ ring: consuming DescriptorRing, _ device: any GigabitDevice, _ id: Int,
    head: Register<UInt32>, tail: Register<UInt32>, command: GigabitTransmitCommand,
    counters: UnsafeMutablePointer<UInt64>
  ) {
    self.ring = ring
    unsafe self.counters = unsafe counters
    unsafe home = nil
    (self.device, self.id, self.head, self.command) = (device, id, head, command)
    doorbell = Doorbell(device.bar, tail)
  }

  deinit {
    guard device.stopTransmitRing(id) else { return ring.leak() }
    var i = clean
    while i != next {
      unsafe ring.pools[i].give(ring.buffers[i])
      i = (i + 1) & ring.mask
    }
  }

  /// The number of packets that fit before the ring wraps.
  ///
  /// One descriptor stays free: head == tail means "empty".
  @inline(__always) private var run: Int {
    min((clean &- next &- 1) & ring.mask, ring.mask &+ 1 &- next)
  }

  /// A copy of what it takes to write descriptors: in a loop, nothing is loaded again.
  @safe private struct Writer {
    let descriptors: UnsafeMutablePointer<Descriptor>
    let buffers: UnsafeMutablePointer<Buffer>
    let pools: UnsafeMutablePointer<PoolReference>
    let home: PoolReference
    let command: GigabitTransmitCommand
    var count = 0
    var bytes = 0
    /// Other than 0 when a packet is not of the pool `home`.
    var foreign: UInt = 0

    /// - Parameters:
    ///   - queue: Its next descriptors are written, up to where the ring wraps.
    ///   - pool: The home of a queue that has none yet.
    @inline(__always) init(_ queue: borrowing GigabitTransmitQueue, _ pool: PoolReference) {
      let (ring, i) = unsafe (queue.ring.descriptors, queue.next)
      unsafe (descriptors, buffers) = (ring + i, queue.ring.buffers + i)
      unsafe (pools, home) = (queue.ring.pools + i, queue.home ?? pool)
      command = queue.command
    }

    /// Writes the next descriptor, which must be free, and notes whose buffer it has.
    @inline(__always) mutating func put(_ packet: consuming Packet) {
      let (buffer, pool, length) = unsafe packet.disown()
      foreign |= unsafe UInt(bitPattern: pool) ^ UInt(bitPattern: home)
      unsafe buffers[count] = unsafe buffer
      unsafe pools[count] = unsafe pool
      unsafe descriptors[count] = unsafe Descriptor(
        pool.iova(buffer), UInt64(length) &* command.lengths &+ command.base)
      bytes &+= Int(length)
      count &+= 1
    }
  }

  /// Gives the descriptors that `writer` has written to the device.
  @inline(__always) private mutating func commit(_ writer: Writer) {
    // The last descriptor of each run of 32 is reported; the device does not see it before the doorbell.
    let end = next &+ writer.count
    var last = next | (Self.period &- 1)
    while last < end {
      unsafe ring.descriptors[last].high |= GigabitTransmitCommand.reportStatus
      last &+= Self.period
    }
    unsafe home = writer.home
    if writer.foreign != 0 { isMixed = true }
    next = end & ring.mask
    unsafe counters.count(writer.count)
    unsafe (counters + 1).count(writer.bytes)
    doorbell.ring(next)
  }

  /// Gives the buffers of each run of 32 descriptors that the device reports as sent back.
  @inline(__always) private mutating func cleanUp() {
    while (next &- clean) & ring.mask >= Self.period {
      let last = unsafe ring.descriptors + (clean &+ (Self.period - 1))
      let word = unsafe ixy_load64(UnsafeRawPointer(last) + 8)
      if word & GigabitTransmitCommand.done == 0 { break }
      if !isMixed, let home = unsafe home {
        // `clean` is a multiple of 32, and so is the ring: the run never wraps.
        let top = unsafe home.pointee.top
        unsafe (home.pointee.stack + top).update(from: ring.buffers + clean, count: Self.period)
        unsafe home.pointee.top = top &+ Self.period
      } else {
        for i in clean..<(clean &+ Self.period) { unsafe ring.pools[i].give(ring.buffers[i]) }
      }
      clean = (clean &+ Self.period) & ring.mask
    }
  }
}

extension GigabitTransmitQueue: TransmitQueue {
  /// Takes as many packets from the front of `batch` as the ring has room for; the rest stay in it.
  mutating func transmit(_ batch: inout PacketBatch) -> Int {
    cleanUp()
    let start = batch.head
    repeat {
      let count = min(batch.count, run)
      if count <= 0 { break }
      var packet = unsafe batch.base + batch.head
      let end = unsafe packet + count
      var writer = unsafe Writer(self, packet.pointee.pool)
      while unsafe packet != end {
        unsafe writer.put(packet.move())
        unsafe packet += 1
      }
      batch.head &+= count
      commit(writer)
    } while !batch.isEmpty
    return batch.head &- start
  }

  /// Sends one packet, or hands it back when the ring is full.
  mutating func transmit(_ packet: consuming Packet) -> Packet? {
    cleanUp()
    if run == 0 { return packet }
    var writer = unsafe Writer(self, packet.pool)
    writer.put(packet)
    commit(writer)
    return nil
  }

  /// Gives the buffers of packets that are sent back to their mempools, as far as that is known.
  ///
  /// - Returns: The number of packets that the device has not fetched yet.
  mutating func reclaim() -> Int {
    cleanUp()
    let head = Int(truncatingIfNeeded: device.bar[head])
    return (next &- head) & ring.mask
  }
}
