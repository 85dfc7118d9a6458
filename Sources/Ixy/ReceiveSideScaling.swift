/// How cards spread frames over their receive queues: by a hash of addresses and ports, so that the frames of
/// one flow stay on one queue and in order.
enum ReceiveSideScaling {
  /// The Toeplitz key: the one whose hashes are published for verification.
  static let key: [UInt8] = [
    0x6D, 0x5A, 0x56, 0xDA, 0x25, 0x5B, 0x0E, 0xC2, 0x41, 0x67, 0x25, 0x3D, 0x43, 0xA3, 0x8F, 0xB0,
    0xD0, 0xCA, 0x2B, 0xCB, 0xAE, 0x7B, 0x30, 0xB4, 0x77, 0xCB, 0x2D, 0xA3, 0x80, 0x30, 0xF2, 0x0C,
    0x6A, 0x42, 0xB7, 0x3B, 0xBE, 0xAC, 0x01, 0xFA,
  ]

  /// The key as ten little-endian register words.
  static var keyWords: [UInt32] { words(key) }

  /// A redirection table of 128 entries that gives each queue the same share, as 32 register words; `entry`
  /// says what stands in it for a queue.
  static func table(queues: Int, entry: (Int) -> UInt8) -> [UInt32] {
    words((0..<128).map { entry($0 % queues) })
  }

  private static func words(_ bytes: [UInt8]) -> [UInt32] {
    stride(from: 0, to: bytes.count, by: 4).map { i in
      (0..<4).reduce(0) { $0 | UInt32(bytes[i + $1]) << (8 * UInt32($1)) }
    }
  }
}
