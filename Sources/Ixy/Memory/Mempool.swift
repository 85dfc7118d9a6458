/// The memory of one packet buffer.
@usableFromInline typealias Buffer = UnsafeMutableRawPointer

/// The part of a mempool that packets and queues reach by raw pointer: a stack of free buffers.
///
/// A class reference in its place would cost one retain and one release a packet.
@frozen @usableFromInline @unsafe struct PoolState {
  @usableFromInline let stack: UnsafeMutablePointer<Buffer>
  @usableFromInline var top = 0
  /// The pool's `capacity`; here, where changing it costs no check for exclusive access.
  @usableFromInline var capacity = 0
  @usableFromInline let bufferSize: Int
  /// IOVA = pointer + iovaOffset, for every buffer of the pool.
  @usableFromInline var iovaOffset: UInt64 = 0
  /// The mempool, where it is a part of one that threads share: others may have buffers for it.
  @usableFromInline var part: Unmanaged<Mempool>?
}

@usableFromInline typealias PoolReference = UnsafeMutablePointer<PoolState>

extension UnsafeMutablePointer<PoolState> {
  /// Puts a free buffer on the stack.
  @inlinable @inline(__always) func give(_ buffer: Buffer) {
    let top = unsafe pointee.top
    unsafe pointee.stack[top] = unsafe buffer
    unsafe pointee.top = top &+ 1
  }

  /// Where a device sees a buffer.
  @inlinable @inline(__always) func iova(_ buffer: Buffer) -> UInt64 {
    unsafe UInt64(UInt(bitPattern: buffer)) &+ pointee.iovaOffset
  }
}

/// DMA memory cut into equal packet buffers, and a stack of the free ones.
///
/// It belongs to one thread, as do the queues that use it; `SharedMempool` is for several. One that is dropped
/// while packets are alive leaks its memory instead of freeing it under them.
@safe public class Mempool {
  /// The default size of a buffer in bytes: a frame of an MTU of 1,500.
  public static let defaultBufferSize = 2048
  /// Bytes before each buffer that are nobody's: a device's own header before the frame may lie there.
  ///
  /// Buffers of 2,048 bytes back to back would put every packet's first line into few cache sets.
  @usableFromInline static let headroom = 64

  /// The number of buffers that the pool was made with.
  public final var capacity: Int { unsafe state.pointee.capacity }
  @usableFromInline final let state: PoolReference
  private var blocks: [DMABlock] = []

  /// Makes `buffers` buffers that every device of the domain can reach.
  ///
  /// - Parameters:
  ///   - domain: The devices that use it, of which one must be open.
  ///   - buffers: How many; as many as the rings of its queues have entries, and room to work.
  ///   - bufferSize: The size of each in bytes, a multiple of 1,024 up to 16,384.
  /// - Throws: When there is not enough memory for DMA.
  public convenience init(domain: DMADomain, buffers: Int, bufferSize: Int = defaultBufferSize)
    throws(DeviceError)
  {
    self.init(room: buffers, bufferSize: bufferSize)
    let (stride, stack) = unsafe (bufferSize + Self.headroom, state.pointee.stack)
    // A block holds whole buffers only: physical addresses end with their page.
    while capacity < buffers {
      let count = min(buffers - capacity, domain.largestBlock / stride)
      let memory = try domain.allocate(count * stride)
      unsafe state.pointee.iovaOffset = memory.iova &- UInt64(UInt(bitPattern: memory.base))
      let first = unsafe memory.base + Self.headroom
      for i in 0..<count { unsafe (stack + capacity + i).initialize(to: first + i * stride) }
      blocks.append(memory.block)
      unsafe (state.pointee.capacity, state.pointee.top) = (capacity + count, capacity + count)
    }
  }

  /// An empty pool with room for that many buffers.
  init(room: Int, bufferSize: Int) {
    precondition(room > 0 && bufferSize > 0 && bufferSize % 1024 == 0 && bufferSize <= 16384)
    // On cache lines of its own: pools of two threads do not slow each other down.
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 128)
    unsafe state = memory.bindMemory(to: PoolState.self, capacity: 1)
    unsafe state.initialize(to: PoolState(stack: .allocate(capacity: room), bufferSize: bufferSize))
  }

  deinit {
    if available < capacity {
      // A live packet still points here. Leaking is safe, freeing is not.
      return blocks.forEach { _ = unsafe Unmanaged.passRetained($0) }
    }
    unsafe state.pointee.stack.deallocate()
    unsafe UnsafeMutableRawPointer(state).deallocate()
  }

  /// The number of free buffers.
  public final var available: Int { unsafe state.pointee.top }

  /// The size of each buffer in bytes.
  public final var bufferSize: Int { unsafe state.pointee.bufferSize }
}
