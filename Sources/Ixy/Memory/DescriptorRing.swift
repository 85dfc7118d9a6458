import CIxy

/// A descriptor as the processor writes it: two 64-bit stores (SIMD stores cost more here).
@frozen @usableFromInline struct Descriptor {
  @usableFromInline var low: UInt64
  @usableFromInline var high: UInt64

  @inlinable @inline(__always) init(_ low: UInt64, _ high: UInt64) {
    self.low = low
    self.high = high
  }
}

/// A circular array of descriptors in DMA memory, and beside it the buffers that they own.
///
/// The buffers are noted in memory of our own: what the device writes over a descriptor changes nothing
/// here.
@safe @usableFromInline struct DescriptorRing: ~Copyable {
  @usableFromInline let descriptors: UnsafeMutablePointer<Descriptor>
  /// The buffer of each descriptor.
  @usableFromInline let buffers: UnsafeMutablePointer<Buffer>
  /// The pool of each buffer.
  @usableFromInline let pools: UnsafeMutablePointer<PoolReference>
  /// The number of entries less one: an index wraps by `& mask`.
  @usableFromInline let mask: Int
  let memory: DMAMemory

  init(entries: Int, in domain: DMADomain) throws(DeviceError) {
    precondition(entries >= 64 && entries & (entries - 1) == 0, "not a power of two from 64")
    memory = try domain.allocate(entries * MemoryLayout<Descriptor>.stride)
    unsafe descriptors = memory.base.bindMemory(to: Descriptor.self, capacity: entries)
    unsafe descriptors.initialize(repeating: Descriptor(0, 0), count: entries)
    unsafe buffers = .allocate(capacity: entries)
    unsafe pools = .allocate(capacity: entries)
    mask = entries - 1
  }

  deinit {
    unsafe buffers.deallocate()
    unsafe pools.deallocate()
  }

  /// Keeps the memory mapped for ever: the device did not stop, and may still write there.
  func leak() { _ = unsafe Unmanaged.passRetained(memory.block) }
}

extension UnsafeMutablePointer<UInt64> {
  /// Adds to a counter that only this thread writes, and any may read.
  @inlinable @inline(__always) func count(_ more: Int) {
    unsafe ixy_store64(self, pointee &+ UInt64(truncatingIfNeeded: more))
  }
}
