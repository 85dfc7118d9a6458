import Glibc
import Ixy
import Testing

@testable import Emulation

@Suite struct PcapWireTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func frames(in path: String) throws -> [[UInt8]] {
    let reader = try PcapReader(path: path)
    var frames: [[UInt8]] = []
    while let record = try reader.next() { frames.append(Array(record.bytes)) }
    return frames
  }

  @Test func `a file is played in order when there is a receiver`() throws {
    let sent = (0..<1000).map { frame($0, size: 60 + $0) }
    let wire = try PcapWire(input: directory.file("in.pcap", capture(sent)), output: nil)
    #expect(wire.nextFrame() == nil)
    wire.receiverChanged(isOn: true)
    #expect(wire.waitsForDescriptors)
    #expect(wire.takeAll() == sent)
    #expect(wire.counts.sent == 1000)
    try wire.close()
  }

  @Test func `a frame that was not taken is given again`() throws {
    let path = try directory.file("in.pcap", capture([frame(1, size: 60), frame(2, size: 60)]))
    let wire = try PcapWire(input: path, output: nil)
    wire.receiverChanged(isOn: true)
    for _ in 0..<3 { #expect(wire.nextFrame().map { Array($0) } == frame(1, size: 60)) }
    #expect(wire.takeAll() == [frame(1, size: 60), frame(2, size: 60)])
  }

  @Test func `a pause loses nothing`() throws {
    let sent = (0..<5).map { frame($0, size: 20 + 20 * $0) }
    let wire = try PcapWire(input: directory.file("in.pcap", capture(sent)), output: nil)
    wire.receiverChanged(isOn: true)
    var found = [try #require(wire.take())]
    wire.receiverChanged(isOn: false)
    #expect(wire.nextFrame() == nil)
    wire.receiverChanged(isOn: true)
    found += wire.takeAll()
    #expect(found == sent.map(padded))
  }

  @Test func `what is no Ethernet frame is counted and left out`() throws {
    let sent = [frame(1, size: 60), frame(2, size: 13), [], frame(4, size: 14)]
    let wire = try PcapWire(input: directory.file("in.pcap", capture(sent)), output: nil)
    wire.receiverChanged(isOn: true)
    #expect(wire.takeAll() == [sent[0], padded(sent[3])])
    #expect(wire.counts.dropped == 2)
  }

  @Test func `what a card sends is in the file`() throws {
    let path = directory.file("out.pcap")
    do {
      let wire = try PcapWire(input: nil, output: path)
      for i in 0..<100 { wire.send(bytes: frame(i, size: 20 + i)) }
      #expect(wire.counts.received == 100)
      try wire.close()
    }
    #expect(try frames(in: path) == (0..<100).map { padded(frame($0, size: 20 + $0)) })
    // One clock for all: the times of the file rise and are of today.
    let reader = try PcapReader(path: path)
    var last: UInt64 = 1_600_000_000_000_000_000
    while let record = try reader.next() {
      #expect(record.time >= last)
      last = record.time
    }
  }

  @Test func `a card may send without an output file`() throws {
    let wire = try PcapWire(input: nil, output: nil)
    wire.send(bytes: frame(1, size: 60))
    #expect(wire.counts.received == 1 && wire.counts.dropped == 0)
    try wire.close()
  }

  @Test func `frames that were not captured whole are refused before anything starts`() throws {
    let cut = try directory.file("in.pcap", capture([frame(1, size: 96)], missing: 4))
    let out = directory.file("out.pcap")
    let message = message { _ = try PcapWire(input: cut, output: out) }
    #expect(message.contains("of frame 1 it has 96 of 100 bytes"), "\(message)")
    #expect(!exists(out))
  }

  @Test func `damage at the end is found before anything starts`() throws {
    let whole = capture((0..<5000).map { frame($0, size: 1000) })
    let path = try directory.file("in.pcap", whole.dropLast())
    #expect(message { _ = try PcapWire(input: path, output: nil) }.contains("inside frame 5000"))
  }

  @Test func `a file cannot be played into itself`() throws {
    let content = capture([frame(1, size: 60)])
    let path = try directory.file("in.pcap", content)
    #expect(message { _ = try PcapWire(input: path, output: path) }.contains("is using it"))
    #expect(try bytes(of: path) == content)
  }

  @Test func `a full disk is an error at the end`() throws {
    let wire = try PcapWire(input: nil, output: "/dev/full")
    for i in 0..<1000 { wire.send(bytes: frame(i, size: 1514)) }
    #expect(wire.counts.dropped > 0)
    #expect(message { try wire.close() }.contains("No space left on device"))
    #expect(wire.counts.dropped == 1000)
  }

  @Test func `a pipe cannot be played because it cannot be looked through first`() throws {
    let path = directory.file("pipe")
    mkfifo(path, 0o600)
    #expect(
      message { _ = try PcapWire(input: path, output: nil) }.contains(
        "it is no file that can be read twice"))
  }
}
