/// One frame buffer with one owner; dropping it gives the buffer back to its mempool.
///
/// It cannot be copied: it is either given to a queue (consumed) or dropped. Sending it twice, or using it
/// afterwards, does not compile. What is known about the frame is kept here and not before the frame in
/// the buffer, where the device could overwrite it.
@safe @frozen public struct Packet: ~Copyable {
  @usableFromInline let buffer: Buffer
  @usableFromInline let pool: PoolReference
  @usableFromInline var length: UInt32
  /// The hash that the card calculated over addresses and ports (RSS); 0 when it calculated none.
  public let hash: UInt32

  @inlinable @inline(__always)
  init(buffer: Buffer, pool: PoolReference, length: UInt32, hash: UInt32) {
    unsafe self.buffer = unsafe buffer
    unsafe self.pool = unsafe pool
    self.length = length
    self.hash = hash
  }

  @inlinable @inline(__always) deinit { unsafe pool.give(buffer) }

  /// Ends the packet without giving its buffer back: the caller owns it now.
  @inlinable @inline(__always)
  consuming func disown() -> (buffer: Buffer, pool: PoolReference, length: UInt32) {
    let parts = unsafe (buffer, pool, length)
    discard self
    return unsafe parts
  }

  /// Byte `i` of the frame.
  public subscript(i: Int) -> UInt8 {
    @inlinable @inline(__always) get {
      precondition(UInt(bitPattern: i) < UInt(length))
      // SAFETY: below the length, which is never above the size of the buffer.
      return unsafe buffer.load(fromByteOffset: i, as: UInt8.self)
    }
    @inlinable @inline(__always) set {
      precondition(UInt(bitPattern: i) < UInt(length))
      unsafe buffer.storeBytes(of: newValue, toByteOffset: i, as: UInt8.self)
    }
  }
}

/// What a fused forward does with a packet.
public enum Verdict {
  /// Sends it.
  case send
  /// Gives its buffer back.
  case drop
}
