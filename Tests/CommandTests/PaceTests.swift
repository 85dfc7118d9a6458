import Emulation
import Ixy
import Testing

@testable import IxyCommand

/// What commands do when, by a clock of the test's own: the machine may be as busy as it likes.
@Suite struct PaceTests {
  private let start = ContinuousClock.now

  // MARK: - --exit-when-idle

  @Test func `a slow start is not an idle time`() {
    var limits = Limits(duration: nil, idle: .seconds(1))
    let isOver = [10_000, 10_999, 11_000].map { time in
      limits.isOver(wasBusy: false, at: start + .milliseconds(time))
    }
    #expect(isOver == [false, false, true])
  }

  @Test func `each frame begins the idle time anew`() {
    var limits = Limits(duration: nil, idle: .seconds(1))
    let isOver = [(0, true), (999, false), (1998, true), (2997, false), (2998, false)].map {
      time, wasBusy in limits.isOver(wasBusy: wasBusy, at: start + .milliseconds(time))
    }
    #expect(isOver == [false, false, false, false, true])
  }

  // MARK: - --duration

  @Test func `a duration ends when it is over, whatever comes`() {
    var limits = Limits(duration: .seconds(1000))
    let isOver = [start + .seconds(999), .now + .seconds(1000)].map {
      limits.isOver(wasBusy: true, at: $0)
    }
    #expect(isOver == [false, true])
  }

  @Test func `what is under way at the end is waited for`() {
    var limits = Limits(duration: .seconds(1000))
    var endings = 0
    limits.isEnding = { endings += 1 }
    let end = ContinuousClock.now + .seconds(1000)
    let isOver = [(0, true), (99, true), (198, false), (199, false)].map { time, wasBusy in
      limits.isOver(wasBusy: wasBusy, at: end + .milliseconds(time))
    }
    #expect(isOver == [false, false, false, true] && endings == 1)
  }

  // MARK: - pktgen --rate

  @Test func `a rate is kept to the frame, and what was late is caught up with`() {
    var pace = Pace(framesPerSecond: 2000, start: start)
    #expect(pace.due(at: start) == 0)
    var sent = 0
    // A frame is due every 500 microseconds; now and then nobody looks for a while.
    for (microseconds, frames) in [
      (499, 0), (501, 1), (999, 1), (1001, 2), (21_001, 42), (21_002, 42), (2_021_001, 4042),
    ] {
      let now = start + .microseconds(microseconds)
      let due = pace.due(at: now)
      sent += due
      pace.sent(due)
      #expect(sent == frames && pace.due(at: now) == 0, "after \(microseconds) microseconds")
    }
  }

  // MARK: - replay

  private func replay(_ timing: ReplayTiming, milliseconds: [UInt64]) throws -> [Int] {
    let scratch = try Scratch()
    let file = scratch.path("a.pcap")
    _ = try writeTenASecond(to: file)
    var source = ReplaySource(reader: try PcapReader(path: file), timing: timing, rounds: 1)
    let domain = DMADomain()
    try domain.attach(DMATable())
    let pool = try Mempool(domain: domain, buffers: 64)
    var batch = PacketBatch(capacity: 64)
    return try milliseconds.map { time in
      try source.fill(&batch, from: pool, upTo: 64, at: 1_000_000_000 + time * 1_000_000)
      return batch.count
    }
  }

  @Test func `a frame is replayed at its time, and at once when that is over`() throws {
    let counts = try replay(.recorded, milliseconds: [0, 99, 100, 101, 199, 950, 1000, 1999, 2000])
    #expect(counts == [1, 1, 2, 2, 2, 10, 11, 20, 21])
  }

  @Test func `a rate takes the place of the times`() throws {
    let counts = try replay(.rate(.frames(20)), milliseconds: [0, 49, 50, 51, 475, 999, 1000])
    #expect(counts == [1, 1, 2, 2, 10, 20, 21])
  }

  @Test func `a fast replay waits for nothing`() throws {
    #expect(try replay(.fast, milliseconds: [0]) == [21])
  }
}
