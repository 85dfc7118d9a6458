import Foundation
import Glibc
import Ixy
import Testing

@testable import Emulation

/// A capture file, byte by byte, in any of the format's four forms.
func capture(
  _ frames: [[UInt8]], magic: UInt32 = 0xA1B2_C3D4, isBigEndian: Bool = false, link: UInt32 = 1,
  version: UInt16 = 2, missing: UInt32 = 0
) -> [UInt8] {
  func number(_ value: UInt32, _ count: Int = 4) -> [UInt8] {
    let bytes = (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt32($0))) }
    return isBigEndian ? bytes.reversed() : bytes
  }
  var file = number(magic) + number(UInt32(version), 2) + number(4, 2)
  file += number(0) + number(0) + number(262_144) + number(link)
  for (i, frame) in frames.enumerated() {
    let length = UInt32(frame.count)
    file += number(1_700_000_000 + UInt32(i)) + number(UInt32(i) * 7)
    file += number(length) + number(length + missing) + frame
  }
  return file
}

@Suite struct PcapReaderTests {
  private let directory: TemporaryDirectory
  private let frames = [60, 1, 0, 1514, 9000, 262_144, 61].enumerated().map { number, size in
    [UInt8](repeating: UInt8(number), count: size)
  }

  init() throws { directory = try TemporaryDirectory() }

  private func read(_ bytes: [UInt8]) throws -> [(bytes: [UInt8], time: UInt64)] {
    let reader = try PcapReader(path: directory.file("in.pcap", bytes))
    var found: [(bytes: [UInt8], time: UInt64)] = []
    while let record = try reader.next() {
      found.append((Array(record.bytes), record.time))
      #expect(record.originalLength == record.bytes.count)
    }
    #expect(reader.count == UInt64(found.count))
    return found
  }

  @Test(arguments: [false, true], [(0xA1B2_C3D4, 1000), (0xA1B2_3C4D, 1)] as [(UInt32, UInt64)])
  func `each form of the format is read`(isBigEndian: Bool, form: (UInt32, UInt64)) throws {
    let found = try read(capture(frames, magic: form.0, isBigEndian: isBigEndian))
    #expect(found.map(\.bytes) == frames)
    let times = frames.indices.map { i in
      (1_700_000_000 + UInt64(i)) * 1_000_000_000 + UInt64(i) * 7 * form.1
    }
    #expect(found.map(\.time) == times)
  }

  @Test func `many frames cross the ends of the buffer`() throws {
    let many = (0..<3000).map { frame($0, size: 14 + $0 % 1500) }
    #expect(try read(capture(many)).map(\.bytes) == many)
  }

  @Test func `a reader can begin again`() throws {
    let reader = try PcapReader(path: directory.file("in.pcap", capture(frames)))
    while try reader.next() != nil {}
    try reader.rewind()
    #expect(try reader.next().map { Array($0.bytes) } == frames[0])
  }

  @Test func `every way to be cut short is an error`() throws {
    let whole = capture([frame(1, size: 60), frame(2, size: 60)])
    for length in 0..<whole.count where length != 24 && length != 24 + 76 {
      let message = message { _ = try read(Array(whole.prefix(length))) }
      #expect(message.contains(length < 24 ? "shorter than a header" : "it ends inside"))
    }
    #expect(try read(Array(whole.prefix(24))).isEmpty)
  }

  @Test(arguments: [
    (capture([], link: 113), "link type 113, not Ethernet (1)"),
    (capture([], link: 0x1400_0001), "carry an FCS"),
    (capture([], version: 3), "version 3, not 2"),
    (capture([], isBigEndian: true, version: 1), "version 1, not 2"),
    ([0x1F, 0x8B, 8, 0] + [UInt8](repeating: 0, count: 50), "gzip"),
    ([UInt8](repeating: 0xFF, count: 100), "does not begin with the magic number"),
    ([UInt8](repeating: 0, count: 100), "does not begin with the magic number"),
  ])
  func `a foreign file is named`(bytes: [UInt8], part: String) {
    let message = message { _ = try read(bytes) }
    #expect(message.contains(part), "\(message)")
  }

  @Test(arguments: [262_145, UInt32.max]) func `a length beyond all frames is damage`(
    length: UInt32
  )
    throws
  {
    var bytes = capture([frame(1, size: 60)])
    for i in 0..<4 { bytes[24 + 8 + i] = UInt8(truncatingIfNeeded: length >> UInt32(8 * i)) }
    #expect(message { _ = try read(bytes) }.contains("frame 1, at byte 24, claims \(length) bytes"))
  }

  @Test func `a file that is not there is an error`() {
    #expect(message { _ = try PcapReader(path: directory.file("none")) }.contains("No such file"))
    #expect(message { _ = try PcapReader(path: directory.path) }.contains("Is a directory"))
  }
}

@Suite struct PcapWriterTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func frames(in path: String) throws -> [[UInt8]] {
    let reader = try PcapReader(path: path)
    var frames: [[UInt8]] = []
    while let record = try reader.next() { frames.append(Array(record.bytes)) }
    return frames
  }

  @Test func `what was written is read again`() throws {
    let path = directory.file("out.pcap")
    let sent = (0..<2000).map { frame($0, size: 14 + $0) }
    do {
      let writer = try PcapWriter(path: path)
      for (i, frame) in sent.enumerated() {
        frame.withUnsafeBytes { writer.append($0, at: UInt64(i) * 1_500_000_007) }
      }
      try writer.close()
    }
    let reader = try PcapReader(path: path)
    for (i, frame) in sent.enumerated() {
      let record = try #require(try reader.next())
      #expect(Array(record.bytes) == frame)
      #expect(record.time == UInt64(i) * 1_500_000_007)
    }
    #expect(try reader.next() == nil)
  }

  @Test func `a snap length keeps the start of each frame`() throws {
    let path = directory.file("out.pcap")
    do {
      let writer = try PcapWriter(path: path, snapLength: 100)
      for size in [60, 100, 101, 1514] {
        frame(9, size: size).withUnsafeBytes { writer.append($0, at: 0) }
      }
      try writer.close()
    }
    let reader = try PcapReader(path: path)
    for size in [60, 100, 101, 1514] {
      let record = try #require(try reader.next())
      #expect(record.originalLength == size)
      #expect(Array(record.bytes) == Array(frame(9, size: size).prefix(100)))
    }
  }

  @Test func `a capture without frames is valid`() throws {
    let path = directory.file("out.pcap")
    try PcapWriter(path: path).close()
    #expect(try frames(in: path).isEmpty)
  }

  @Test func `a longer file of before is gone`() throws {
    let path = try directory.file("out.pcap", [UInt8](repeating: 7, count: 10_000))
    try PcapWriter(path: path).close()
    #expect(try bytes(of: path).count == 24)
  }

  @Test func `nothing changes before the capture begins`() throws {
    let old = try directory.file("old", [1, 2, 3])
    _ = try PcapWriter(path: old)
    #expect(try bytes(of: old) == [1, 2, 3])
    _ = try PcapWriter(path: directory.file("new"))
    #expect(!exists(directory.file("new")))
  }

  @Test func `what is buffered is written when the writer is dropped`() throws {
    let path = directory.file("out.pcap")
    do {
      let writer = try PcapWriter(path: path)
      frame(1, size: 60).withUnsafeBytes { writer.append($0, at: 0) }
    }
    #expect(try frames(in: path) == [frame(1, size: 60)])
  }

  @Test func `two captures cannot share a file`() throws {
    let path = directory.file("out.pcap")
    let first = try PcapWriter(path: path)
    first.begin()
    #expect(message { _ = try PcapWriter(path: path) }.contains("is using it"))
    #expect(message { _ = try PcapReader(path: path) }.contains("being written"))
  }

  @Test func `a path that cannot be written is an error`() {
    #expect(
      message { _ = try PcapWriter(path: directory.file("no/file")) }.contains("No such file"))
    #expect(message { _ = try PcapWriter(path: directory.path) }.contains("Is a directory"))
  }

  @Test func `a full disk is reported`() throws {
    let writer = try PcapWriter(path: "/dev/full")
    for i in 0..<1000 { frame(i, size: 1000).withUnsafeBytes { writer.append($0, at: 0) } }
    let message = message { try writer.close() }
    #expect(message.contains("No space left on device"), "\(message)")
    #expect(message.contains("0 frames are in /dev/full, 1000 are not"), "\(message)")
    #expect(writer.lost == 1000 && writer.count == 0)
  }

  /// A limit of the process's file size is the one full disk that a test without root can have, but it is
  /// the whole process's: this runs with root, on a file system of its own.
  @Test(.enabled(if: canMount, "needs root (CAP_SYS_ADMIN) to mount a small file system"))
  func `a disk that fills up leaves whole frames`() throws {
    let mount = directory.file("small")
    try FileManager.default.createDirectory(atPath: mount, withIntermediateDirectories: true)
    try run("/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount)
    defer { _ = try? run("/bin/umount", "-l", mount) }
    let path = mount + "/out.pcap"
    let sent = (0..<2000).map { frame($0, size: 999) }
    let writer = try PcapWriter(path: path)
    for frame in sent { frame.withUnsafeBytes { writer.append($0, at: 0) } }
    #expect(message { try writer.close() }.contains("No space left on device"))
    #expect(writer.count + writer.lost == 2000)
    #expect(writer.count > 900 && writer.lost > 900)
    // The lock goes with its holder; the bytes are there to look at now.
    let copy = try directory.file("copy.pcap", bytes(of: path))
    #expect(try frames(in: copy) == Array(sent.prefix(Int(writer.count))))
  }
}

/// By a trial, in a mount namespace that goes with it: root alone does not say so.
private let canMount =
  program("unshare").flatMap {
    try? run($0, "-m", "/bin/mount", "-t", "tmpfs", "tmpfs", "/tmp")
  } != nil

@Suite struct PcapStrangerTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private static func has(_ name: String) -> Bool { program(name) != nil }

  private func written() throws -> String {
    let path = directory.file("out.pcap")
    let writer = try PcapWriter(path: path)
    let generator = GeneratorWire(.init(), destination: MACAddress(bits: 0x02 << 40 | 5), stream: 1)
    generator.receiverChanged(isOn: true)
    for i in 0..<500 {
      guard let frame = generator.nextFrame() else { continue }
      writer.append(frame, at: 1_700_000_000_000_000_000 + UInt64(i) * 1_000_000_001)
      generator.takeFrame()
    }
    try writer.close()
    return path
  }

  @Test(.enabled(if: has("tcpdump"), "tcpdump is not installed"))
  func `tcpdump reads what we write`() throws {
    let text = try run(
      #require(program("tcpdump")), "-r", try written(), "-nevv", "-tt", "--nano", "udp")
    #expect(text.components(separatedBy: "198.19.0.1.9: [no cksum]").count == 501)
    #expect(text.contains("1700000003.000000003 "))
    #expect(text.contains("> 02:00:00:00:00:05, ethertype IPv4 (0x0800), length 60"))
    // Its own opinion of our IP checksum and lengths.
    #expect(!text.contains("bad"), "\(text)")
  }

  @Test(.enabled(if: has("tcpdump"), "tcpdump is not installed"))
  func `we read what tcpdump writes`() throws {
    let source = try written()
    let micro = directory.file("micro.pcap")
    try run(#require(program("tcpdump")), "-r", source, "-w", micro, "--micro")
    let (ours, theirs) = try (PcapReader(path: source), PcapReader(path: micro))
    while let frame = try ours.next() {
      let other = try #require(try theirs.next())
      #expect(Array(frame.bytes) == Array(other.bytes))
      #expect(frame.time / 1000 == other.time / 1000)
    }
    #expect(try theirs.next() == nil && theirs.count == 500)
  }

  @Test(.enabled(if: has("capinfos"), "capinfos (of Wireshark) is not installed"))
  func `capinfos finds nanoseconds and every frame`() throws {
    let text = try run(#require(program("capinfos")), "-t", "-c", "-E", try written())
    #expect(text.contains("nanosecond") && text.contains("Ethernet"))
    #expect(text.contains("Number of packets:   500"))
  }

  @Test(.enabled(if: has("tshark"), "tshark is not installed"))
  func `tshark finds right checksums`() throws {
    let text = try run(
      #require(program("tshark")), "-r", try written(), "-o", "ip.check_checksum:TRUE",
      "-Y", "ip.checksum.status == good && udp.dstport == 9", "-T", "fields", "-e", "frame.number")
    #expect(text.split(separator: "\n").filter { UInt64($0) != nil }.count == 500)
  }
}
