import CIxy

/// A receive ring of a vmxnet3.
///
/// Each descriptor owns one buffer. A received frame leaves with its buffer as a `Packet`, and a fresh
/// buffer takes its place. Each descriptor that the device has used has one completion, in the same order.
@safe struct Vmxnet3ReceiveQueue: ~Copyable {
  private let rings: Vmxnet3Rings
  private let descriptors: UnsafeMutablePointer<Descriptor>
  private let completions: UnsafeMutablePointer<Descriptor>
  /// The buffer of each descriptor, in memory of our own.
  private let buffers: UnsafeMutablePointer<Buffer>
  /// The entries of the ring less one, and their number as a power of two.
  private let mask: Int
  private let shift: Int
  private let pool: PoolReference
  private let counters: UnsafeMutablePointer<UInt64>
  /// The length of the longest frame, without its 14 bytes of header.
  private let longest: UInt32
  /// The use of a descriptor that the device will complete next, counted from the start.
  private var next = 0
  /// In the middle of a frame that is thrown away.
  private var isDiscarding = false
  /// The device has named a descriptor that was not its turn: nothing that it says can be trusted.
  private var isBroken = false
  private let doorbell: Doorbell
  /// Other than 0 when the device wants the doorbell.
  private let wantsDoorbell: UnsafeRawPointer
  private let id: Int
  private let device: Vmxnet3Device
  private let mempool: Mempool

  /// A queue whose ring is filled; the device may take the buffers at once.
  init(
    _ rings: Vmxnet3Rings, _ device: Vmxnet3Device, _ id: Int, wantsDoorbell: UnsafeRawPointer,
    counters: UnsafeMutablePointer<UInt64>, mempool: Mempool
  ) {
    unsafe self.wantsDoorbell = unsafe wantsDoorbell
    self.rings = rings
    unsafe descriptors = rings.descriptors(0)
    unsafe completions = rings.descriptors(2)
    mask = rings.sizes[0] - 1
    shift = rings.sizes[0].trailingZeroBitCount
    unsafe buffers = .allocate(capacity: mask + 1)
    unsafe pool = unsafe mempool.state
    unsafe self.counters = unsafe counters
    self.mempool = mempool
    longest = UInt32(device.configuration.maximumFrame - 14)
    self.device = device
    self.id = id
    doorbell = Doorbell(device.data, Vmxnet3Register.rxprod(id))
    for i in 0...mask {
      unsafe pool.pointee.top -= 1
      unsafe (buffers + i).initialize(to: pool.pointee.stack[pool.pointee.top])
    }
    // One stays behind: known drivers never give all of a ring away.
    for i in 0..<mask { arm(i) }
    doorbell.ring(mask)
  }

  deinit {
    if device.releaseReceiveQueue(id) {
      for i in 0...mask { unsafe pool.give(buffers[i]) }
    }
    unsafe buffers.deallocate()
  }

  /// Gives the device the buffer of a descriptor, for its use number `use`.
  @inline(__always) private func arm(_ use: Int) {
    let i = use & mask
    let bit = Vmxnet3Generation.bit(of: use, shift: shift)
    let address = unsafe UInt64(UInt(bitPattern: buffers[i])) &+ pool.pointee.iovaOffset
    unsafe descriptors.publish(
      i, address,
      Vmxnet3ReceiveDescriptor.word(size: pool.pointee.bufferSize)
        | bit << Vmxnet3ReceiveDescriptor.generationShift)
  }

  /// Counts a frame that cannot be used; its descriptors may be several.
  @inline(never) private mutating func discard(_ low: UInt64) {
    if !isDiscarding || low & Vmxnet3ReceiveCompletion.start != 0 {
      unsafe (counters + 2).count(1)
    }
    isDiscarding = low & Vmxnet3ReceiveCompletion.end == 0
  }
}

extension Vmxnet3ReceiveQueue: ReceiveQueue {
  /// Appends up to `max` received packets to `batch`, as far as it has room.
  ///
  /// Never blocks. With an empty mempool, frames wait in the ring.
  ///
  /// - Throws: When the device completes a descriptor out of its turn.
  mutating func receive(into batch: inout PacketBatch, max: Int) throws(DeviceError) -> Int {
    if isBroken { throw device.brokenRing("receive", id) }
    if batch.isEmpty { batch.removeAll() }
    var use = next
    // Locals: nothing to load again in the loop.
    let (completions, buffers, mask, shift) = unsafe (completions, buffers, mask, shift)
    let (pool, stack) = unsafe (pool, pool.pointee.stack)
    let place = Vmxnet3ReceiveCompletion.place(queue: id)
    let wanted = min(max, batch.capacity &- batch.tail)
    var top = unsafe pool.stock(wanted)
    let bottom = top &- min(wanted, top)
    var packet = unsafe batch.base + batch.tail
    // The device may spoil descriptors as fast as they are given back: one round is enough.
    var (bytes, bad) = (0, 0)
    while top != bottom, bad <= mask {
      // There are twice as many completions as descriptors: room for a second ring's.
      let bit = Vmxnet3Generation.bit(of: use, shift: shift &+ 1)
      let completion = unsafe completions.completion(use & (2 &* mask &+ 1), bit)
      guard let (low, high) = completion else { break }
      let i = use & mask
      if low & Vmxnet3ReceiveCompletion.place != place | UInt64(i) {
        isBroken = true
        break
      }
      if Vmxnet3ReceiveCompletion.isWhole(low, high, longest: longest) {
        let length = Vmxnet3ReceiveCompletion.length(high)
        // RSS hash, in the upper half of the first word.
        unsafe packet.initialize(
          to: Packet(
            buffer: buffers[i], pool: pool, length: length,
            hash: UInt32(truncatingIfNeeded: low >> 32)))
        unsafe packet += 1
        top &-= 1
        unsafe buffers[i] = unsafe stack[top]
        bytes &+= Int(length)
      } else {
        discard(low)
        bad &+= 1
      }
      arm(use &+ mask)
      use &+= 1
    }
    let count = unsafe packet - (batch.base + batch.tail)
    unsafe pool.pointee.top = top
    batch.tail &+= count
    if use != next {
      next = use
      unsafe counters.count(count)
      unsafe (counters + 1).count(bytes)
      if unsafe ixy_load8(wantsDoorbell) != 0 { doorbell.ring((use &- 1) & mask) }
    }
    if isBroken, count == 0 { throw device.brokenRing("receive", id) }
    return count
  }
}
