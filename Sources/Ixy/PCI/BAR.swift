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
  private let access: (any RegisterAccess)?
  private let mapped: [Range<Int>]

  /// A BAR that is mapped as a whole, for the lifetime of this object.
  ///
  /// - Parameter base: What `mmap` gave; unmapped with this object.
  public init(mapped base: UnsafeMutableRawPointer, size: Int) {
    unsafe self.base = unsafe base
    self.size = size
    access = nil
    mapped = [0..<size]
  }

  /// A BAR whose accesses are forwarded, except in the ranges that are `mapped` at `base` + offset.
  public init(
    forwarded access: any RegisterAccess, size: Int, base: UnsafeMutableRawPointer,
    mapped: [Range<Int>]
  ) {
    unsafe self.base = unsafe base
    self.size = size
    self.access = access
    self.mapped = mapped
  }

  /// A BAR whose every access is forwarded.
  public init(forwarded access: any RegisterAccess, size: Int) {
    unsafe base = nil
    self.size = size
    self.access = access
    mapped = []
  }

  deinit {
    if let base = unsafe base { unsafe munmap(base, size) }
  }

  /// Where `offset` is mapped; nil when it is forwarded.
  func pointer(to offset: Int, width: Int) -> UnsafeMutableRawPointer? {
    precondition(offset >= 0 && offset + width <= size, "register outside the BAR")
    // SAFETY: inside the mapping, which lives as long as `self`.
    return unsafe mapped.contains { $0.contains(offset) } ? base.map { unsafe $0 + offset } : nil
  }

  /// The register: read by `get`, written by `set`, both by a change in place.
  public subscript<Value>(register: Register<Value>) -> Value {
    get { Value(bits: UInt32(truncatingIfNeeded: read(register.offset, width: 4))) }
    set { write(UInt64(newValue.bits), to: register.offset, width: 4) }
  }

  /// Reads `width` bytes (1, 2, 4 or 8) at an offset.
  public func read(_ offset: Int, width: Int) -> UInt64 {
    guard let pointer = unsafe pointer(to: offset, width: width) else {
      return access?.read(offset, width: width) ?? .max
    }
    return switch width {
    case 1: unsafe UInt64(ixy_load8(pointer))
    case 2: unsafe UInt64(ixy_load16(pointer))
    case 4: unsafe UInt64(ixy_load32(pointer))
    default: unsafe ixy_load64(pointer)
    }
  }

  /// Writes `width` bytes at an offset.
  public func write(_ value: UInt64, to offset: Int, width: Int) {
    guard let pointer = unsafe pointer(to: offset, width: width) else {
      access?.write(value, to: offset, width: width)
      return
    }
    switch width {
    case 1: unsafe ixy_store8(pointer, UInt8(truncatingIfNeeded: value))
    case 2: unsafe ixy_store16(pointer, UInt16(truncatingIfNeeded: value))
    case 4: unsafe ixy_store32(pointer, UInt32(truncatingIfNeeded: value))
    default: unsafe ixy_store64(pointer, value)
    }
  }

  /// Waits until `condition` holds for a register's value; looks at once, then every millisecond.
  ///
  /// - Parameters:
  ///   - device: The device's name, for the message.
  ///   - event: What is waited for, in words, for the message.
  ///   - limit: The longest wait.
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
  let bar: BAR
  let offset: Int

  init(_ bar: BAR, _ offset: Int) {
    unsafe pointer = unsafe bar.pointer(to: offset, width: 4)
    self.bar = bar
    self.offset = offset
  }

  @inlinable @inline(__always) func ring(_ value: Int) {
    let bits = UInt32(truncatingIfNeeded: value)
    if let pointer = unsafe pointer { unsafe ixy_store32(pointer, bits) } else { forward(bits) }
  }

  @usableFromInline @inline(never) func forward(_ bits: UInt32) {
    bar.write(UInt64(bits), to: offset, width: 4)
  }
}
