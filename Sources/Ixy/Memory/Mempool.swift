/// The memory of one packet buffer.
@usableFromInline typealias Buffer = UnsafeMutableRawPointer

/// The part of a mempool that packets and queues reach by raw pointer: a stack of free buffers.
///
/// A class reference in its place would cost one retain and one release a packet.
@frozen @usableFromInline @unsafe struct PoolState {
  @usableFromInline let stack: UnsafeMutablePointer<Buffer>
  @usableFromInline var top = 0
  @usableFromInline let bufferSize: Int
  /// IOVA = pointer + iovaOffset, for every buffer of the pool.
  @usableFromInline let iovaOffset: UInt64
}

@usableFromInline typealias PoolReference = UnsafeMutablePointer<PoolState>

extension UnsafeMutablePointer<PoolState> {
  /// Puts a free buffer on the stack.
  @inlinable @inline(__always) func give(_ buffer: Buffer) {
    let top = unsafe pointee.top
    unsafe pointee.stack[top] = unsafe buffer
    unsafe pointee.top = top &+ 1
  }
}

/// DMA memory cut into equal packet buffers, and a stack of the free ones.
///
/// It belongs to one thread, as do the queues that use it. A mempool that is dropped while packets are
/// alive leaks its memory instead of freeing it under them.
@safe public final class Mempool {
  /// The default size of a buffer in bytes: a frame of an MTU of 1,500.
  public static let defaultBufferSize = 2048
  /// Buffers of 2,048 bytes back to back would put every packet's first line into few cache sets.
  private static let gap = 64

  /// The number of buffers that the pool was made with.
  public let capacity: Int
  @usableFromInline let state: PoolReference
  private var blocks: [DMABlock] = []

  /// Makes `buffers` buffers that every device of the domain can reach.
  ///
  /// - Parameters:
  ///   - buffers: How many; as many as the rings of its queues have entries, and room to work.
  ///   - bufferSize: The size of each in bytes, a multiple of 1,024.
  public init(domain: DMADomain, buffers: Int, bufferSize: Int = defaultBufferSize)
    throws(DeviceError)
  {
    precondition(buffers > 0 && bufferSize > 0 && bufferSize % 1024 == 0 && bufferSize <= 16384)
    let stride = bufferSize + Self.gap
    let stack = UnsafeMutablePointer<Buffer>.allocate(capacity: buffers)
    capacity = buffers
    unsafe state = .allocate(capacity: 1)
    var made = 0
    var offset: UInt64 = 0
    do throws(DeviceError) {
      while made < buffers {
        let count = min(buffers - made, domain.largestBlock / stride)
        let memory = try domain.allocate(count * stride)
        for i in 0..<count { unsafe (stack + made + i).initialize(to: memory.base + i * stride) }
        offset = unsafe memory.iova &- UInt64(UInt(bitPattern: memory.base))
        blocks.append(memory.block)
        made += count
      }
    } catch {
      unsafe stack.deallocate()
      unsafe state.deallocate()
      throw error
    }
    unsafe state.initialize(
      to: PoolState(stack: stack, top: buffers, bufferSize: bufferSize, iovaOffset: offset))
  }

  deinit {
    if available < capacity {
      // A live packet still points here. Leaking is safe, freeing is not.
      for block in blocks { _ = unsafe Unmanaged.passRetained(block) }
      return
    }
    unsafe state.pointee.stack.deallocate()
    unsafe state.deallocate()
  }

  /// The number of free buffers.
  public var available: Int { unsafe state.pointee.top }

  /// The size of each buffer in bytes.
  public var bufferSize: Int { unsafe state.pointee.bufferSize }

  /// A packet of `length` bytes, whose content is whatever the buffer held; nil when none is free.
  @inlinable public func packet(length: Int) -> Packet? {
    precondition(length >= 0 && length <= bufferSize)
    let top = unsafe state.pointee.top
    if top == 0 { return nil }
    unsafe state.pointee.top = top &- 1
    return unsafe Packet(
      buffer: state.pointee.stack[top &- 1], pool: state,
      length: UInt32(truncatingIfNeeded: length), hash: 0)
  }
}
