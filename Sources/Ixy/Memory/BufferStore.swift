import Synchronization

/// Free buffers that threads leave for each other, in chunks; lock-free.
///
/// Two stacks of chunks, full ones and empty ones, each with its top in one atomic word. A thread takes a full
/// chunk, copies its buffers, and puts it on the empty ones; giving back goes the other way round. Beside each
/// top is a number that every change moves on, so that a top that has been away and is back is noticed.
@safe struct BufferStore: ~Copyable {
  /// The most buffers in a chunk.
  static let chunk = 32
  /// Chunks are in the hands of threads for a moment: so many more than there may be buffers.
  private static let spare = 64

  /// The buffers of every chunk.
  private let buffers: UnsafeMutablePointer<Buffer>
  /// How many each has.
  private let counts: UnsafeMutablePointer<Int>
  /// The chunk below each one in its stack; 0 is none, n is chunk n - 1.
  private let below: UnsafeMutablePointer<Atomic<UInt32>>
  /// The tops of the two stacks, on cache lines of their own.
  private let tops: UnsafeMutableRawPointer
  private let chunks: Int

  /// A store for at most `capacity` buffers, empty.
  init(capacity: Int) {
    // A chunk may have a single buffer. What is never touched costs address space only.
    chunks = capacity + Self.spare
    unsafe buffers = .allocate(capacity: chunks * Self.chunk)
    unsafe counts = .allocate(capacity: chunks)
    unsafe below = .allocate(capacity: chunks)
    unsafe tops = .allocate(byteCount: 256, alignment: 128)
    unsafe full.initialize(to: Atomic(0))
    unsafe empty.initialize(to: Atomic(1))
    for i in 0..<chunks {
      unsafe (below + i).initialize(to: Atomic(i + 1 < chunks ? UInt32(i + 2) : 0))
    }
  }

  deinit {
    unsafe buffers.deallocate()
    unsafe counts.deallocate()
    unsafe below.deallocate()
    unsafe tops.deallocate()
  }

  private var full: UnsafeMutablePointer<Atomic<UInt64>> {
    @inline(__always) get { unsafe tops.assumingMemoryBound(to: Atomic<UInt64>.self) }
  }
  private var empty: UnsafeMutablePointer<Atomic<UInt64>> {
    @inline(__always) get { unsafe (tops + 128).assumingMemoryBound(to: Atomic<UInt64>.self) }
  }

  /// Copies one chunk of free buffers to `target`, which has room for `chunk`.
  ///
  /// - Returns: How many there were; 0 when the store is empty.
  @inline(__always) func take(to target: UnsafeMutablePointer<Buffer>) -> Int {
    guard let i = unsafe pop(full) else { return 0 }
    let count = unsafe counts[i]
    unsafe target.update(from: buffers + i * Self.chunk, count: count)
    unsafe push(i, on: empty)
    return count
  }

  /// Leaves up to `chunk` free buffers for others.
  ///
  /// - Returns: False when every empty chunk is in somebody's hands just now; nothing is done then.
  @inline(__always) func give(_ source: UnsafeMutablePointer<Buffer>, count: Int) -> Bool {
    guard let i = unsafe pop(empty) else { return false }
    unsafe (buffers + i * Self.chunk).update(from: source, count: count)
    unsafe counts[i] = count
    unsafe push(i, on: full)
    return true
  }

  /// Takes the topmost chunk off a stack.
  @inline(__always) private func pop(_ stack: UnsafeMutablePointer<Atomic<UInt64>>) -> Int? {
    var old = unsafe stack.pointee.load(ordering: .acquiring)
    while true {
      let top = Int(truncatingIfNeeded: old & 0xFFFF_FFFF)
      if top == 0 { return nil }
      // Another thread may have it by now, and the word below be another one: then the exchange fails.
      let next = unsafe below[top &- 1].load(ordering: .relaxed)
      let (isOurs, now) = unsafe stack.pointee.weakCompareExchange(
        expected: old, desired: Self.moved(old, to: next), ordering: .acquiringAndReleasing)
      if isOurs { return top &- 1 }
      old = now
    }
  }

  /// Puts a chunk on a stack, with all that was written to it.
  @inline(__always)
  private func push(_ i: Int, on stack: UnsafeMutablePointer<Atomic<UInt64>>) {
    var old = unsafe stack.pointee.load(ordering: .relaxed)
    while true {
      unsafe below[i].store(UInt32(truncatingIfNeeded: old), ordering: .relaxed)
      let (isDone, now) = unsafe stack.pointee.weakCompareExchange(
        expected: old, desired: Self.moved(old, to: UInt32(truncatingIfNeeded: i &+ 1)),
        ordering: .acquiringAndReleasing)
      if isDone { return }
      old = now
    }
  }

  /// Another top, and the next number beside it.
  @inline(__always) private static func moved(_ old: UInt64, to top: UInt32) -> UInt64 {
    (old & ~0xFFFF_FFFF) &+ 1 << 32 | UInt64(top)
  }
}
