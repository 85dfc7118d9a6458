import CIxy
import Glibc

/// The registers of one device, mapped; a `ForwardedBAR` has other ways to them.
@safe public class BAR {
  /// The size in bytes.
  public let size: Int
  private let base: UnsafeMutableRawPointer?

  /// A BAR at `base`, which `mmap` gave and which is unmapped with this object.
  init(_ base: UnsafeMutableRawPointer?, size: Int) {
    unsafe self.base = unsafe base
    self.size = size
  }

  deinit {
    if let base = unsafe base { unsafe munmap(base, size) }
  }

  /// Where a register is mapped; nil when it is forwarded.
  func pointer(to offset: Int, width: Int) -> UnsafeMutableRawPointer? {
    precondition(offset >= 0 && offset + width <= size, "register outside the BAR")
    // SAFETY: inside the mapping, which lives as long as `self`.
    return unsafe base.map { unsafe $0 + offset }
  }

  /// Reads 32 bits.
  func load(_ offset: Int) -> UInt32 {
    unsafe pointer(to: offset, width: 4).map { unsafe ixy_load32($0) } ?? .max
  }

  /// Writes 32 bits.
  func store(_ bits: UInt32, to offset: Int) {
    if let pointer = unsafe pointer(to: offset, width: 4) { unsafe ixy_store32(pointer, bits) }
  }

  /// The register: read by `get`, written by `set`, both by a change in place.
  public subscript<Value>(register: Register<Value>) -> Value {
    get { Value(bits: load(register.offset)) }
    set { store(newValue.bits, to: register.offset) }
  }

  /// Waits until `condition` holds for a register's value; looks at once, then every millisecond.
  ///
  /// - Parameters:
  ///   - event: What is waited for, in words, for the message.
  ///   - register: The register to poll.
  ///   - device: The device's name, for the message.
  ///   - limit: The longest wait. DATASHEET-SILENT: one second is ours.
  ///   - condition: What the value must be.
  /// - Throws: `DeviceError.timeout`, or `.gone` when the register reads as all ones.
  public func wait<Value>(
    for event: String, in register: Register<Value>, of device: String,
    limit: Duration = .seconds(1), until condition: (Value) -> Bool
  ) throws(DeviceError) {
    let deadline = ContinuousClock.now + limit
    while true {
      // The clock before the register: a process that slept too long still looks once more.
      let isLast = ContinuousClock.now >= deadline
      let value = self[register]
      if value.bits == .max { throw .gone(device: device) }
      if condition(value) { return }
      if isLast { throw .timeout(device: device, waitingFor: event, limit: limit) }
      usleep(1000)
    }
  }
}

/// The register write that tells a device of new descriptors.
@safe @usableFromInline struct Doorbell {
  @usableFromInline let pointer: UnsafeMutableRawPointer?
  private let bar: BAR
  private let register: Register<UInt32>

  init(_ bar: BAR, _ register: Register<UInt32>) {
    unsafe pointer = unsafe bar.pointer(to: register.offset, width: 4)
    self.bar = bar
    self.register = register
  }

  @inlinable @inline(__always) func ring(_ value: Int) {
    let bits = UInt32(truncatingIfNeeded: value)
    if let pointer = unsafe pointer { unsafe ixy_store32(pointer, bits) } else { forward(bits) }
  }

  @usableFromInline @inline(never) func forward(_ bits: UInt32) { bar[register] = bits }
}
