import ArgumentParser

/// How a capture file is laid out; both formats keep times in nanoseconds.
///
/// Sources: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Numbers are in this machine's order, which
/// the magic numbers tell.
enum CaptureFormat: String, CaseIterable, ExpressibleByArgument {
  /// A header of 24 bytes; each frame behind 16 bytes of its own.
  case pcap
  /// Blocks that begin and end with their length: a section, an interface, then one for each frame.
  case pcapng

  /// The more that is kept of a frame, the more a reader must have room for: no reader takes more.
  static let longestFrame = 262_144
  private static let ethernet: UInt32 = 1

  /// What a file begins with.
  func header(snapLength: Int) -> [UInt8] {
    let kept = UInt32(snapLength)
    let words: [UInt32] =
      switch self {
      // Magic of nanoseconds, version 2.4, two unused, snap length, link type.
      case .pcap: [0xA1B2_3C4D, 2 | 4 << 16, 0, 0, kept, Self.ethernet]
      case .pcapng:
        // Section header: byte order, version 1.0, a length that is not known.
        [0x0A0D_0D0A, 28, 0x1A2B_3C4D, 1, .max, .max, 28]
          // Interface: link type, snap length; option if_tsresol (9) says 10^-9; the end of options.
          + [1, 32, Self.ethernet, kept, 9 | 1 << 16, 9, 0, 32]
      }
    return words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
  }

  /// The bytes that a frame takes, of which `kept` are its own.
  func recordSize(_ kept: Int) -> Int {
    switch self {
    case .pcap: 16 + kept
    case .pcapng: 32 + (kept + 3) & ~3
    }
  }

  /// Writes a frame of which `kept` bytes are kept.
  ///
  /// - Parameters:
  ///   - frame: Its bytes, at least one.
  ///   - kept: How many of them.
  ///   - time: Nanoseconds since 1970.
  ///   - place: Room for `recordSize(kept)` bytes.
  func write(
    _ frame: UnsafeRawBufferPointer, kept: Int, time: UInt64, to place: UnsafeMutableRawPointer
  ) {
    guard let source = frame.baseAddress else { return }
    func put(_ index: Int, _ word: UInt64) {
      unsafe place.storeBytes(
        of: UInt32(truncatingIfNeeded: word), toByteOffset: 4 * index, as: UInt32.self)
    }
    switch self {
    case .pcap:
      put(0, time / 1_000_000_000)
      put(1, time % 1_000_000_000)
      put(2, UInt64(kept))
      put(3, UInt64(frame.count))
      unsafe (place + 16).copyMemory(from: source, byteCount: kept)
    case .pcapng:
      let size = recordSize(kept)
      // The last word of the data is filled up with zeros.
      put(size / 4 - 2, 0)
      // Enhanced packet block of interface 0.
      put(0, 6)
      put(1, UInt64(size))
      put(2, 0)
      put(3, time >> 32)
      put(4, time)
      put(5, UInt64(kept))
      put(6, UInt64(frame.count))
      unsafe (place + 28).copyMemory(from: source, byteCount: kept)
      put(size / 4 - 1, UInt64(size))
    }
  }
}
