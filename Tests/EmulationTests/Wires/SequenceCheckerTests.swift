import Ixy
import Testing

@testable import Emulation

@Suite struct SequenceCheckerTests {
  private let wire = SinkWire()
  private let template = TestFrameTemplate(
    size: 60, destination: MACAddress(bits: 1 << 41), source: MACAddress(bits: 2), stream: 5)

  private func numbered(_ sequence: UInt64, flow: Int = 0) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 60)
    bytes.withUnsafeMutableBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      template.write(to: base)
      template.number(base, flow: flow, sequence: sequence, time: 0)
    }
    return bytes
  }

  private func send(_ numbers: [UInt64]) {
    for number in numbers { wire.send(bytes: numbered(number)) }
  }

  @Test(arguments: [
    ([0, 1, 2, 3], 0, 0),
    // A gap, at the start and later.
    ([1, 2], 1, 0), ([0, 1, 5], 3, 0), ([0, 2, 4, 6], 3, 0),
    // What was missing comes late.
    ([0, 2, 1, 3], 0, 1), ([0, 5, 1, 2, 3, 4, 6], 0, 4), ([3, 0, 1, 2], 0, 3), ([0, 9, 5], 7, 1),
    // Twice is not a replacement for what is lost.
    ([0, 0], 0, 1), ([0, 2, 2], 1, 1), ([0, 3, 2, 2], 1, 2), ([0, 1, 2, 0, 1, 2], 0, 3),
  ])
  func `lost frames are told from late ones`(numbers: [UInt64], lost: UInt64, reordered: UInt64) {
    send(numbers)
    #expect(wire.counts.lost == lost)
    #expect(wire.counts.reordered == reordered)
    #expect(wire.counts.received == UInt64(numbers.count))
  }

  @Test func `flows have numbers of their own`() {
    for number in 0..<10 as Range<UInt64> {
      for flow in [0, 1, TestFrame.maximumFlows - 1] where !(flow == 1 && number == 4) {
        wire.send(bytes: numbered(number, flow: flow))
      }
    }
    #expect(wire.counts.lost == 1)
    #expect(wire.counts.reordered == 0)
  }

  @Test func `a restarted generator is a new stream`() {
    send([0, 1, 2])
    var other = numbered(0)
    other[45] = 6
    wire.send(bytes: other)
    #expect(wire.counts.reordered == 0 && wire.counts.lost == 0)
  }

  @Test func `other frames are counted only`() {
    send([0])
    wire.send(bytes: [UInt8](repeating: 0xFF, count: 1514))
    wire.send(bytes: [UInt8](repeating: 0, count: 60))
    wire.send(bytes: Array(numbered(99).prefix(59)))
    wire.send(bytes: [])
    for place in [36, 37, 42, 43] {
      var bytes = numbered(99)
      bytes[place] ^= 0x80
      wire.send(bytes: bytes)
    }
    send([1])
    #expect(wire.counts.lost == 0 && wire.counts.reordered == 0)
  }

  @Test func `the largest number does not trap`() {
    send([.max, 0, .max, 1, .max - 1])
    #expect(wire.counts.received == 5)
  }

  @Test func `more gaps than are remembered keep the count of lost frames`() {
    for number in 0..<5000 as Range<UInt64> { send([2 * number]) }
    #expect(wire.counts.lost == 4999)
    send([1])
    #expect(wire.counts.lost == 4999)
    #expect(wire.counts.reordered == 1)
  }

  @Test(arguments: [12, 14, 23, 34, 36, 37, 42, 43])
  func `a frame with another header is not numbered`(place: Int) {
    var bytes = numbered(7)
    bytes[place] ^= 0x80
    #expect(bytes.withUnsafeBytes { TestFrame($0) } == nil)
    #expect(numbered(7).prefix(59).withUnsafeBytes { TestFrame($0) } == nil)
  }

  @Test func `a test frame says who made it`() throws {
    var bytes = [UInt8](repeating: 0xEE, count: 60)
    bytes.withUnsafeMutableBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      template.write(to: base)
      template.number(
        base, flow: 1234, sequence: 0x0102_0304_0506_0708, time: 0xFFFF_A1B2_C3D4_E5F6)
    }
    let found = try #require(bytes.withUnsafeBytes { TestFrame($0) })
    #expect(found.stream == 5 && found.flow == 1234)
    #expect(found.sequence == 0x0102_0304_0506_0708)
    #expect(found.time == 0xA1B2_C3D4_E5F6)
    #expect(!bytes.contains(0xEE))
  }
}
