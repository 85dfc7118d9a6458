import CIxy

extension BAR {
  /// A BAR whose every access is forwarded.
  public convenience init(forwarded access: any RegisterAccess, size: Int) {
    unsafe self.init(nil, size: size, mapped: [], forwarding: access)
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
}
