extension Packet {
  /// The length of the frame in bytes, without FCS; at most `capacity`.
  public var count: Int {
    @inlinable @inline(__always) get { Int(length) }
    @inlinable @inline(__always) set {
      precondition(newValue >= 0 && newValue <= capacity)
      length = UInt32(truncatingIfNeeded: newValue)
    }
  }

  /// The size of the buffer in bytes.
  public var capacity: Int { @inlinable @inline(__always) get { unsafe pool.pointee.bufferSize } }

  /// The bytes of the frame, checked against its length; the span cannot outlive the packet.
  public var bytes: MutableRawSpan {
    @inlinable @inline(__always) @_lifetime(&self) mutating get {
      // SAFETY: the buffer is ours as long as the packet is, and has at least `length` bytes.
      unsafe _overrideLifetime(
        MutableRawSpan(_unsafeStart: buffer, byteCount: Int(length)), mutating: &self)
    }
  }

  /// The bytes of the frame, to be looked at.
  public var contents: RawSpan {
    @inlinable @inline(__always) @_lifetime(borrow self) borrowing get {
      // SAFETY: as for `bytes`.
      unsafe _overrideLifetime(
        RawSpan(_unsafeStart: buffer, byteCount: Int(length)), borrowing: self)
    }
  }
}

extension Mempool {
  /// A packet of `length` bytes, whose content is whatever the buffer held; nil when none is free.
  ///
  /// - Parameter length: In bytes; more than `bufferSize` traps.
  /// - Returns: The packet, which the caller owns.
  @inlinable public func packet(length: Int) -> Packet? {
    precondition(length >= 0 && length <= bufferSize)
    let top = unsafe state.stock(1)
    if top == 0 { return nil }
    unsafe state.pointee.top = top &- 1
    return unsafe Packet(
      buffer: state.pointee.stack[top &- 1], pool: state,
      length: UInt32(truncatingIfNeeded: length), hash: 0)
  }
}

extension PacketBatch {
  /// Packet `i`, counted from the oldest.
  public subscript(i: Int) -> Packet {
    @inlinable @inline(__always) _read {
      precondition(UInt(bitPattern: i) < UInt(bitPattern: count))
      yield unsafe base[head &+ i]
    }
    @inlinable @inline(__always) _modify {
      precondition(UInt(bitPattern: i) < UInt(bitPattern: count))
      yield unsafe &base[head &+ i]
    }
  }

  /// Adds a packet at the end; the batch must have fewer than `capacity`.
  @inlinable @inline(__always) public mutating func append(_ packet: consuming Packet) {
    if tail == capacity { moveToFront() }
    unsafe (base + tail).initialize(to: packet)
    tail &+= 1
  }

  /// Makes room behind the packets, when some at the front are gone: a full ring took only those.
  @usableFromInline @inline(never) mutating func moveToFront() {
    precondition(head > 0, "the batch is full")
    unsafe base.moveInitialize(from: base + head, count: count)
    (head, tail) = (0, count)
  }

  /// Takes the oldest packet out; nil when there is none.
  @inlinable @inline(__always) public mutating func popFirst() -> Packet? {
    if head == tail { return nil }
    head &+= 1
    return unsafe (base + (head &- 1)).move()
  }
}
