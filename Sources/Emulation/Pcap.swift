import Glibc
import Ixy

/// The classic capture format: a header of 24 bytes, then records of 16 bytes and a frame each.
///
/// Source: draft-ietf-opsawg-pcap. Numbers are in the byte order of the machine that wrote the file,
/// which the magic number tells; it also tells whether times are in micro- or nanoseconds.
enum PcapFormat {
  static let headerSize = 24
  static let recordSize = 16
  static let microseconds: UInt32 = 0xA1B2_C3D4
  static let nanoseconds: UInt32 = 0xA1B2_3C4D
  static let ethernet: UInt32 = 1
  /// The largest record that the format's readers accept.
  static let maximumLength = 262_144
}

/// Reads the frames of a pcap or pcapng file, from first to last.
@safe public final class PcapReader {
  // SAFETY: the bytes from `start` to `end` of `buffer` are what was read, and `fill` has found as
  // many as are looked at.
  /// The frame that was read last.
  @safe public struct Record {
    /// The bytes that were captured; valid until the next one is read.
    public let bytes: UnsafeRawBufferPointer
    /// How long the frame was on the wire, without FCS.
    public let originalLength: Int
    /// When it was captured: nanoseconds since 1970.
    public let time: UInt64
  }

  /// The file that is read.
  public let path: String
  /// The frames that were read so far.
  public private(set) var count: UInt64 = 0
  private let file: FileDescriptor
  /// Whether numbers are in the other byte order than this machine's.
  var isSwapped = false
  private var unit: UInt64 = 1000
  /// The interfaces of a pcapng file's section; nil in a file of the classic format.
  var interfaces: [PcapNG.Interface]?
  // What the file has from `start` to `end` is in the buffer.
  static let bufferSize = 2 * PcapFormat.maximumLength
  private let buffer = UnsafeMutableRawPointer.allocate(byteCount: bufferSize, alignment: 16)
  private var start = 0
  private var end = 0
  private var position: UInt64 = 0

  /// Opens a file and reads its header.
  ///
  /// - Throws: `DeviceError` when it cannot be read, or is not a capture of Ethernet frames.
  public init(path: String) throws(DeviceError) {
    self.path = path
    file = try FileDescriptor(path: path, O_RDONLY, advice: "Is the path right?")
    // The other end of the lock that a writer takes.
    if flock(file.number, LOCK_SH | LOCK_NB) != 0, errno == EWOULDBLOCK {
      throw .refused("Read \(path)", found: "a capture is being written to it", advice: "")
    }
    try readHeader()
  }

  deinit {
    // Closing alone does not unlock while a child that is just being started has the file, too.
    flock(file.number, LOCK_UN)
    unsafe buffer.deallocate()
  }

  /// The next frame; nil at the end of the file.
  ///
  /// - Throws: `DeviceError` when the file cannot be read, is damaged or ends inside a frame.
  public func next() throws(DeviceError) -> Record? {
    if interfaces != nil { return try nextBlock() }
    guard try fill(PcapFormat.recordSize) else {
      if isAtEnd { return nil }
      throw damaged("it ends inside the header of frame \(count + 1)")
    }
    let seconds = UInt64(word(0))
    let fraction = UInt64(word(4))
    let length = Int(word(8))
    let originalLength = Int(word(12))
    if length > PcapFormat.maximumLength {
      throw damaged("frame \(count + 1), at byte \(position), claims \(length) bytes")
    }
    skip(PcapFormat.recordSize)
    guard try fill(length) else {
      throw damaged("it ends inside frame \(count + 1), at byte \(position)")
    }
    return record(
      at: 0, length, of: originalLength, time: seconds * 1_000_000_000 + fraction * unit,
      end: length)
  }

  /// The frame whose bytes are at an offset; goes on to `end`.
  func record(at offset: Int, _ length: Int, of originalLength: Int, time: UInt64, end: Int)
    -> Record
  {
    let bytes = unsafe UnsafeRawBufferPointer(start: buffer + start + offset, count: length)
    skip(end)
    count += 1
    return unsafe Record(bytes: bytes, originalLength: originalLength, time: time)
  }

  /// Goes back to the first frame.
  ///
  /// The file must be one that can be read again, not a pipe.
  public func rewind() throws(DeviceError) {
    guard lseek(file.number, 0, SEEK_SET) == 0 else {
      throw .lastError("Read \(path) again", advice: "Give a file, not a pipe.")
    }
    start = 0
    end = 0
    position = 0
    count = 0
    interfaces = nil
    isSwapped = false
    try readHeader()
  }

  private func readHeader() throws(DeviceError) {
    guard try fill(4) else { throw foreign("it is shorter than a header") }
    let magic = unsafe buffer.load(fromByteOffset: start, as: UInt32.self)
    if magic == PcapNG.section {
      interfaces = []
      return
    }
    let known = [PcapFormat.microseconds, PcapFormat.nanoseconds]
    isSwapped = known.contains(magic.byteSwapped)
    guard known.contains(word(0)) else { throw foreign(Self.name(of: word(0))) }
    unit = word(0) == PcapFormat.nanoseconds ? 1 : 1000
    guard try fill(PcapFormat.headerSize) else { throw foreign("it is shorter than a header") }
    let major = isSwapped ? word(4) >> 16 : word(4) & 0xFFFF
    guard major == 2 else { throw foreign("its format has version \(major), not 2") }
    // The upper bits tell of an FCS behind each frame, which ours never have.
    let link = word(20)
    guard link & 0xFFFF == PcapFormat.ethernet else {
      throw foreign("its frames are of link type \(link & 0xFFFF), not Ethernet (1)")
    }
    guard link >> 16 == 0 else { throw foreign("its frames carry an FCS") }
    skip(PcapFormat.headerSize)
  }

  /// What a file is that begins with these four bytes.
  private static func name(of magic: UInt32) -> String {
    if magic & 0xFFFF == 0x8B1F { return "it is compressed with gzip" }
    return "it does not begin with the magic number of pcap"
  }

  func foreign(_ found: String) -> DeviceError {
    let advice = "Give a pcap or pcapng file of Ethernet frames; editcap -F pcap converts others."
    return .refused("Read \(path)", found: found, advice: advice)
  }

  func damaged(_ found: String) -> DeviceError {
    .refused("Read \(path)", found: found, advice: "Is the file damaged, or still being written?")
  }

  /// The number at an offset behind `start`, which `fill` has seen to be there.
  func word(_ offset: Int) -> UInt32 {
    let value = unsafe buffer.loadUnaligned(fromByteOffset: start + offset, as: UInt32.self)
    return isSwapped ? value.byteSwapped : value
  }

  func skip(_ count: Int) {
    start += count
    position += UInt64(count)
  }

  /// Whether the file was read to its end.
  var isAtEnd: Bool { start == end }

  /// Gets `count` bytes into the buffer; false when the file has fewer.
  func fill(_ count: Int) throws(DeviceError) -> Bool {
    if end - start >= count { return true }
    unsafe buffer.copyMemory(from: buffer + start, byteCount: end - start)
    end -= start
    start = 0
    while end < count {
      let found = unsafe read(file.number, buffer + end, Self.bufferSize - end)
      if found < 0, errno == EINTR { continue }
      if found < 0 { throw .lastError("Read \(path)") }
      if found == 0 { return false }
      end += found
    }
    return true
  }
}
