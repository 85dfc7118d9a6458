import Ixy
import Testing

@testable import Emulation

@Suite struct GeneratorWireTests {
  private let address = MACAddress(bits: 0x02_00_00_00_00_07)

  private func generator(_ change: (inout GeneratorWire.Settings) -> Void) -> GeneratorWire {
    var settings = GeneratorWire.Settings()
    change(&settings)
    return GeneratorWire(settings, destination: address, stream: 77)
  }

  private func header(_ frame: [UInt8]) -> TestFrame? { frame.withUnsafeBytes { TestFrame($0) } }

  @Test(arguments: [1, 31, 32, 33, 1000]) func `it sends as many frames as were asked for`(
    count: Int
  ) {
    let wire = generator { $0.count = UInt64(count) }
    wire.receiverChanged(isOn: true)
    let headers = wire.takeAll().compactMap(header)
    #expect(headers.map(\.sequence) == (0..<UInt64(count)).map { $0 })
    #expect(headers.allSatisfy { $0.stream == 77 && $0.flow == 0 })
    #expect(wire.counts.sent == UInt64(count))
    #expect(wire.nextFrame() == nil)
  }

  @Test func `nothing comes before there is a receiver`() {
    let wire = generator { $0.count = 5 }
    #expect(wire.nextFrame() == nil)
    wire.receiverChanged(isOn: true)
    #expect(wire.take() != nil)
    wire.receiverChanged(isOn: false)
    #expect(wire.nextFrame() == nil)
    wire.receiverChanged(isOn: true)
    #expect(wire.takeAll().compactMap(header).map(\.sequence) == [1, 2, 3, 4])
  }

  @Test func `a generator that is stopped has no more frames`() {
    let wire = generator { _ in }
    wire.receiverChanged(isOn: true)
    for _ in 0..<5 { _ = wire.take() }
    wire.stop()
    #expect(wire.takeAll().isEmpty)
    #expect(wire.counts.sent == 5)
  }

  @Test func `looking twice gives the same frame`() throws {
    let wire = generator { $0.count = 2 }
    wire.receiverChanged(isOn: true)
    #expect(try Array(#require(wire.nextFrame())) == Array(#require(wire.nextFrame())))
    #expect(wire.counts.sent == 0)
  }

  @Test func `flows take turns and each counts for itself`() {
    let wire = generator {
      $0.count = 10
      $0.flows = 3
    }
    wire.receiverChanged(isOn: true)
    let headers = wire.takeAll().compactMap(header)
    #expect(headers.map(\.flow) == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    #expect(headers.map(\.sequence) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3])
  }

  @Test(arguments: [1, TestFrame.maximumFlows])
  func `every flow has a right IP checksum`(flows: Int) {
    for size in [60, 61, 1514, FrameSize.maximum] {
      let wire = generator {
        $0.count = UInt64(min(flows + 1, size == 60 ? .max : 100))
        $0.flows = flows
        $0.size = size
      }
      wire.receiverChanged(isOn: true)
      while let frame = wire.take() {
        let words = stride(from: 14, to: 34, by: 2).map {
          UInt32(frame[$0]) << 8 | UInt32(frame[$0 + 1])
        }
        var sum = words.reduce(0, +)
        while sum > 0xFFFF { sum = (sum & 0xFFFF) + (sum >> 16) }
        // An #expect for each of some ten thousand frames would take most of the time of the test.
        if sum != 0xFFFF || Int(words[1]) != size - 14 || frame.count != size {
          Issue.record("bad header \(frame.prefix(42))")
        }
      }
    }
  }

  @Test func `frames go to the card`() throws {
    let wire = generator { $0.count = 1 }
    wire.receiverChanged(isOn: true)
    let frame = try #require(wire.take())
    #expect(frame[0..<6] == [2, 0, 0, 0, 0, 7])
    #expect(frame[6] & 1 == 0)
  }

  @Test func `what comes back is checked`() {
    let wire = generator { $0.count = 100 }
    wire.receiverChanged(isOn: true)
    for (i, frame) in wire.takeAll().enumerated() where i != 50 { wire.send(bytes: frame) }
    #expect(wire.counts.received == 99)
    #expect(wire.counts.lost == 1)
    #expect(wire.counts.reordered == 0)
  }

  @Test func `a generator with a rate does not wait`() {
    #expect(generator { _ in }.waitsForDescriptors)
    #expect(!generator { $0.rate = .frames(10) }.waitsForDescriptors)
  }

  /// A clock that a test moves.
  private final class Clock {
    var now: UInt64 = 5_000_000_000
  }

  private func generator(rate: FrameRate) -> (GeneratorWire, Clock) {
    let wire = generator { $0.rate = rate }
    let clock = Clock()
    wire.clock = { clock.now }
    wire.receiverChanged(isOn: true)
    return (wire, clock)
  }

  @Test(
    arguments: [1.0, 999, 20_000, 3_000_000], [1_000, 100_000, 999_999, 9_000_000] as [UInt64])
  func `a rate is kept, however often the host looks`(rate: Double, step: UInt64) {
    let (wire, clock) = generator(rate: .frames(rate))
    let framesPerStep = rate * Double(step) * 1e-9
    let steps = UInt64(max(10, min(2000, 20_000 / framesPerStep)))
    for i in 1...steps {
      clock.now += step
      while let frame = wire.take() {
        if header(frame)?.time != clock.now { Issue.record("made at \(clock.now): \(frame)") }
      }
      let due = framesPerStep * Double(i)
      if abs(Double(wire.counts.sent) - due) > 1 { Issue.record("\(wire.counts.sent), not \(due)") }
    }
  }

  @Test func `a host that was stopped is not flooded afterwards`() {
    let (wire, clock) = generator(rate: .frames(1_000_000))
    clock.now += 1_000_000_000
    #expect(wire.takeAll().count == 1)
    clock.now += 1_000_000
    #expect(abs(wire.takeAll().count - 1000) <= 1)
  }

  @Test func `time without a receiver is not caught up with`() {
    let (wire, clock) = generator(rate: .frames(1000))
    clock.now += 5_000_000
    #expect(wire.takeAll().count == 5)
    wire.receiverChanged(isOn: false)
    clock.now += 5_000_000
    wire.receiverChanged(isOn: true)
    #expect(wire.takeAll().isEmpty)
  }

  @Test func `a clock that goes back stops nothing`() {
    let (wire, clock) = generator(rate: .frames(1_000_000))
    clock.now -= 1_000_000
    _ = wire.takeAll()
    clock.now += 2_000_000
    #expect(!wire.takeAll().isEmpty)
  }
}

@Suite struct FrameRateTests {
  @Test(arguments: [
    ("1Mpps", 1e6), ("14.88mpps", 14.88e6), ("20000", 20_000), ("5kpps", 5e3), ("7pps", 7),
    ("0.5", 0.5), ("1Gpps", 1e9),
  ])
  func `frames a second are understood`(text: String, rate: Double) throws {
    #expect(try #require(FrameRate(text)).framesPerSecond(size: 60) == rate)
  }

  @Test func `bits count what a frame takes on the wire`() throws {
    #expect(try #require(FrameRate("672bit")).framesPerSecond(size: 60) == 1)
    #expect(try #require(FrameRate("10Gbit")).framesPerSecond(size: 60) > 14.88e6)
    #expect(try #require(FrameRate("500Mbit")).framesPerSecond(size: 1226) == 50_000)
  }

  @Test(arguments: [
    "", "0", "Mpps", "-1", "+1", "1e6", "0x10", "nan", "inf", ".5", "5.", "1..2", "1.2.3", "1Tbit",
    "1 Mpps", "1Mpps ", "99999Gbit", "١",
  ])
  func `what is no rate is refused`(text: String) {
    #expect(FrameRate(text) == nil)
  }
}
