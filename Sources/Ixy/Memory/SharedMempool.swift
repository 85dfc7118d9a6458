/// Packet buffers for several threads: each has a part of its own, and what one has too many of goes to the others.
///
/// A packet that one thread receives can be worked on by a second and sent by a third, through `PacketRing`s. The
/// parts are ordinary mempools, as fast as one that nobody shares: 32 buffers or more at a time move between a
/// part and the store that all parts share, which is lock-free.
///
/// ```swift
/// let pool = try SharedMempool(domain: domain, buffers: 8192)
/// let mine = try pool.part(buffers: 1024)       // a Mempool; the thread that has it is the only one to use it
/// ```
@safe public final class SharedMempool: @unchecked Sendable {
  /// The number of buffers that the pool was made with.
  public let capacity: Int
  /// The size of each buffer in bytes.
  public let bufferSize: Int
  let store: BufferStore
  /// What the buffers are cut from; its own stack is empty while they are here.
  private let source: Mempool

  /// Makes `buffers` buffers that every device of the domain can reach.
  ///
  /// - Parameters:
  ///   - domain: The devices that use it, of which one must be open.
  ///   - buffers: How many: as many as all receive rings have entries, what each `PacketRing` holds, and 512 for each
  ///     part to work with.
  ///   - bufferSize: The size of each in bytes, a multiple of 1,024 up to 16,384.
  /// - Throws: When there is not enough memory for DMA.
  public init(domain: DMADomain, buffers: Int, bufferSize: Int = Mempool.defaultBufferSize)
    throws(DeviceError)
  {
    let source = try Mempool(domain: domain, buffers: buffers, bufferSize: bufferSize)
    self.source = source
    self.bufferSize = bufferSize
    capacity = buffers
    store = BufferStore(capacity: buffers)
    unsafe give(source.state, downTo: 0)
  }

  deinit {
    // All of them, or the memory stays: `source` counts.
    unsafe take(source.state, upTo: .max)
  }

  /// Makes a part, for one thread.
  ///
  /// - Parameter buffers: The free buffers that it has at first: as many as the ring of its receive queue has
  ///   entries, or none; later it gets what it needs. A fused forward of ixgbe asks for no more: give its part 512
  ///   above the ring.
  /// - Returns: The part, an ordinary mempool; what is left of it goes back when it is dropped.
  /// - Throws: `DeviceError.refused` when there are not so many.
  public func part(buffers: Int = 0) throws(DeviceError) -> Mempool {
    let part = MempoolPart(of: self)
    unsafe take(part.state, upTo: buffers)
    unsafe part.state.pointee.capacity = part.available
    if part.available < buffers {
      throw .refused(
        "Take \(buffers) buffers of a mempool of \(capacity)",
        found: "only \(part.available) are free",
        advice: "Make it larger: parts, rings and packets under way add up.")
    }
    return part
  }

  /// Moves free buffers to a part until it has `count`, or the store is empty; more by less than a chunk.
  @inline(__always) func take(_ pool: PoolReference, upTo count: Int) {
    while unsafe pool.pointee.top < count {
      let top = unsafe pool.pointee.top
      let more = unsafe store.take(to: pool.pointee.stack + top)
      if more == 0 { return }
      unsafe pool.pointee.top = top &+ more
    }
  }

  /// Moves free buffers from a part to the store until it has no more than `count`, as far as that is possible.
  @inline(__always) func give(_ pool: PoolReference, downTo count: Int) {
    while unsafe pool.pointee.top > count {
      let top = unsafe pool.pointee.top
      let less = min(BufferStore.chunk, top &- count)
      if unsafe !store.give(pool.pointee.stack + (top &- less), count: less) { return }
      unsafe pool.pointee.top = top &- less
    }
  }

  /// What a part's memory is: as for the whole.
  func makeState(_ part: Mempool) {
    unsafe part.state.pointee.iovaOffset = unsafe source.state.pointee.iovaOffset
  }
}

/// The part of a shared mempool that one thread uses.
///
/// `capacity` is the number of buffers that are the part's now, free or in its packets and queues.
@safe final class MempoolPart: Mempool {
  let shared: SharedMempool
  /// With more free buffers than this after a hand-over it keeps half of them.
  static let most = 512

  init(of shared: SharedMempool) {
    self.shared = shared
    // Room for all: giving a buffer back never looks for it.
    super.init(room: shared.capacity, bufferSize: shared.bufferSize)
    shared.makeState(self)
    unsafe state.pointee.part = Unmanaged.passUnretained(self)
  }

  deinit {
    // What packets and queues still have stays theirs for ever, and with it this part's state and the memory.
    let missing = capacity - available
    while available > 0 { unsafe shared.give(state, downTo: 0) }
    unsafe state.pointee.capacity = missing
    if missing > 0 { _ = unsafe Unmanaged.passRetained(shared) }
  }

  /// Gets at least `count` free buffers, as far as there are.
  func refill(_ count: Int) {
    let before = available
    unsafe shared.take(state, upTo: count)
    unsafe state.pointee.capacity &+= available &- before
  }

  /// Leaves what it has too many of to the others.
  @inline(__always) func relieve() {
    if available <= Self.most { return }
    let before = available
    unsafe shared.give(state, downTo: Self.most / 2)
    unsafe state.pointee.capacity &-= before &- available
  }
}

extension UnsafeMutablePointer<PoolState> {
  /// The number of free buffers, when the pool has tried to have at least `wanted`.
  ///
  /// Only a part of a shared mempool can do something about it.
  @inlinable @inline(__always) func stock(_ wanted: Int) -> Int {
    if unsafe pointee.top < wanted { unsafe refill(wanted) }
    return unsafe pointee.top
  }

  @usableFromInline @inline(never) func refill(_ wanted: Int) {
    guard let part = unsafe pointee.part else { return }
    // SAFETY: queues and packets' makers hold the mempool while they call this.
    unsafe unsafeDowncast(part._withUnsafeGuaranteedRef { $0 }, to: MempoolPart.self)
      .refill(wanted)
  }
}
