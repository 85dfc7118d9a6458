import CIxy

/// Where register accesses go that are not plain loads and stores: a socket, a model, I/O ports.
public protocol RegisterAccess: AnyObject {
  /// Reads `width` bytes (1, 2, 4 or 8); all ones when the device is gone.
  func read(_ offset: Int, width: Int) -> UInt64
  /// Writes `width` bytes.
  func write(_ value: UInt64, to offset: Int, width: Int)
}

/// Registers that are forwarded, but for a few pages that are mapped.
@safe public final class ForwardedBAR: BAR {
  fileprivate let access: any RegisterAccess
  private let mapped: [Range<Int>]

  /// A BAR whose every access is forwarded.
  public init(_ access: any RegisterAccess, size: Int) {
    self.access = access
    mapped = []
    unsafe super.init(nil, size: size)
  }

  /// A BAR that is mapped in some ranges, and forwarded elsewhere.
  ///
  /// - Parameters:
  ///   - access: Where accesses go.
  ///   - size: The size of the BAR and of the mapping, in bytes.
  ///   - base: What `mmap` gave; unmapped with this object.
  ///   - mapped: The ranges that the mapping is good for.
  public init(
    _ access: any RegisterAccess, size: Int, base: UnsafeMutableRawPointer, mapped: [Range<Int>]
  ) {
    self.access = access
    self.mapped = mapped
    unsafe super.init(base, size: size)
  }

  override func pointer(to offset: Int, width: Int) -> UnsafeMutableRawPointer? {
    let pointer = unsafe super.pointer(to: offset, width: width)
    return unsafe mapped.contains { $0.contains(offset) } ? pointer : nil
  }

  override func load(_ offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: read(offset, width: 4)) }

  override func store(_ bits: UInt32, to offset: Int) { write(UInt64(bits), to: offset, width: 4) }
}

extension BAR {
  /// Reads `width` bytes (1, 2, 4 or 8) at an offset.
  public func read(_ offset: Int, width: Int) -> UInt64 {
    guard let pointer = unsafe pointer(to: offset, width: width) else {
      return (self as? ForwardedBAR)?.access.read(offset, width: width) ?? .max
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
      (self as? ForwardedBAR)?.access.write(value, to: offset, width: width)
      return
    }
    switch width {
    case 1: unsafe ixy_store8(pointer, UInt8(truncatingIfNeeded: value))
    case 2: unsafe ixy_store16(pointer, UInt16(truncatingIfNeeded: value))
    case 4: unsafe ixy_store32(pointer, UInt32(truncatingIfNeeded: value))
    default: unsafe ixy_store64(pointer, value)
    }
  }
}
