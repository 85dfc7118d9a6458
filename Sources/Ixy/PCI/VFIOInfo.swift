import CIxy
import Glibc

/// The answer of a VFIO ioctl: a structure, and maybe a chain of capabilities behind it.
struct VFIOInfo {
  /// All of it, little endian; the first four bytes are its length.
  private(set) var bytes: [UInt8]

  /// Asks, and asks again with more room where the answer wants more.
  ///
  /// - Parameters:
  ///   - file: Whom.
  ///   - request: The ioctl's number.
  ///   - size: The length of the structure in bytes.
  ///   - index: Goes into the third field.
  ///   - tried: What for, for the message.
  /// - Throws: What the kernel says.
  init(
    of file: Int32, _ request: UInt, size: Int, index: Int = 0, _ tried: String
  ) throws(DeviceError) {
    bytes = []
    var room = size
    while true {
      bytes = [UInt8](repeating: 0, count: room)
      set(UInt32(room), at: 0)
      if size > 8 { set(UInt32(index), at: 8) }
      if unsafe ixy_ioctl(file, request, &bytes) != 0 { throw .lastError(tried) }
      let wanted = Int(self[0])
      // 64 KiB: some thousand areas. The kernel never wants so much.
      if wanted <= room || wanted > 1 << 16 { return }
      room = wanted
    }
  }

  /// An answer, as a test has made it up.
  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// The 32-bit field at an offset; 0 outside.
  subscript(offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: number(at: offset, width: 4)) }

  /// The 64-bit field at an offset; 0 outside.
  func wide(_ offset: Int) -> UInt64 { number(at: offset, width: 8) }

  private func number(at offset: Int, width: Int) -> UInt64 {
    guard offset >= 0, offset <= bytes.count - width else { return 0 }
    return bytes[offset..<offset + width].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  private mutating func set(_ value: UInt32, at offset: Int) {
    for i in 0..<4 { bytes[offset + i] = UInt8(truncatingIfNeeded: value >> UInt32(8 * i)) }
  }

  /// The pairs of numbers that a capability lists: ranges of IOVAs, or areas that can be mapped.
  ///
  /// - Parameters:
  ///   - id: The capability.
  ///   - first: Where the chain begins; 0 is none.
  /// - Returns: Its pairs; nil when there is no such capability.
  func pairs(ofCapability id: Int, from first: UInt32) -> [(UInt64, UInt64)]? {
    // Header: id and version, 16 bits each, and the offset of the next. Then the count, and 4 bytes unused.
    var offset = Int(first)
    for _ in 0..<64 where offset > 0 && offset <= bytes.count - 16 {
      if Int(self[offset] & 0xFFFF) == id {
        let room = (bytes.count - offset - 16) / 16
        let start = offset + 16
        return (0..<min(room, Int(self[offset + 8]))).map {
          (wide(start + 16 * $0), wide(start + 16 * $0 + 8))
        }
      }
      offset = Int(self[offset + 4])
    }
    return nil
  }
}
