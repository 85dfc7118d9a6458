/// A frame that stays in its place in the ring, to be looked at and changed.
///
/// It cannot be kept or copied: its buffer is the device's again when the closure that it was shown to returns.
@safe @frozen public struct InPlaceFrame: ~Copyable {
  @usableFromInline let buffer: Buffer
  /// The size of its buffer in bytes.
  public let capacity: Int
  @usableFromInline var length: UInt32

  @inlinable @inline(__always) init(buffer: Buffer, capacity: Int, length: UInt32) {
    unsafe self.buffer = unsafe buffer
    self.capacity = capacity
    self.length = length
  }

  /// The length of the frame in bytes, without FCS; at most `capacity`.
  public var count: Int {
    @inlinable @inline(__always) get { Int(length) }
    @inlinable @inline(__always) set {
      precondition(newValue >= 0 && newValue <= capacity)
      length = UInt32(truncatingIfNeeded: newValue)
    }
  }

  /// The bytes of the frame, checked against its length; the span cannot outlive the frame.
  public var bytes: MutableRawSpan {
    @inlinable @inline(__always) @_lifetime(&self) mutating get {
      // SAFETY: the buffer is ours while the frame is, and has at least `length` bytes.
      unsafe _overrideLifetime(
        MutableRawSpan(_unsafeStart: buffer, byteCount: Int(length)), mutating: &self)
    }
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
