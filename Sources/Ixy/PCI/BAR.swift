import CIxy
import Glibc

/// Where register accesses go that are not plain loads and stores: a socket, a model, I/O ports.
public protocol RegisterAccess: AnyObject {
  /// Reads `width` bytes (1, 2, 4 or 8); all ones when the device is gone.
  func read(_ offset: Int, width: Int) -> UInt64
  /// Writes `width` bytes.
  func write(_ value: UInt64, to offset: Int, width: Int)
}

/// The registers of one device: mapped, or forwarded, or forwarded but for a few mapped pages.
@safe public final class BAR {
  /// The size in bytes.
  public let size: Int
  private let base: UnsafeMutableRawPointer?
  let access: (any RegisterAccess)?
  private let mapped: [Range<Int>]

  /// A BAR at `base`, which `mmap` gave and which is unmapped with this object.
  ///
  /// - Parameters:
  ///   - base: The mapping; nil when every access is forwarded.
  ///   - size: The size of the BAR and of the mapping, in bytes.
  ///   - mapped: The parts that the mapping is good for; nil is all.
  ///   - access: Where all other accesses go.
  public init(
    _ base: UnsafeMutableRawPointer?, size: Int, mapped: [Range<Int>]? = nil,
    forwarding access: (any RegisterAccess)? = nil
  ) {
    unsafe self.base = unsafe base
    self.size = size
    self.access = access
    self.mapped = mapped ?? [0..<size]
  }

  deinit {
    if let base = unsafe base { unsafe munmap(base, size) }
  }

  /// Where `offset` is mapped; nil when it is forwarded.
  func pointer(to offset: Int, width: Int) -> UnsafeMutableRawPointer? {
    precondition(offset >= 0 && offset + width <= size, "register outside the BAR")
    // SAFETY: inside the mapping, which lives as long as `self`.
    return mapped.contains { $0.contains(offset) } ? unsafe base.map { unsafe $0 + offset } : nil
  }

  /// The register: read by `get`, written by `set`, both by a change in place.
  public subscript<Value>(register: Register<Value>) -> Value {
    get {
      let pointer = unsafe pointer(to: register.offset, width: 4)
      let forwarded = { self.access?.read(register.offset, width: 4) ?? .max }
      return unsafe Value(
        bits: pointer.map { unsafe ixy_load32($0) } ?? UInt32(truncatingIfNeeded: forwarded()))
    }
    set {
      if let pointer = unsafe pointer(to: register.offset, width: 4) {
        unsafe ixy_store32(pointer, newValue.bits)
      } else {
        access?.write(UInt64(newValue.bits), to: register.offset, width: 4)
      }
    }
  }

  /// Waits until `condition` holds for a register's value; looks at once, then every millisecond.
  ///
  /// - Parameters:
  ///   - event: What is waited for, in words, for the message.
  ///   - register: The register to poll.
  ///   - device: The device's name, for the message.
  ///   - limit: The longest wait.
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
