import Testing

@testable import IxyCommand

/// How long a command waits for a card that takes frames slowly, by a clock of our own.
@Suite struct DrainTests {
  /// The seconds until it gives up or 1,000 frames are gone, of which a card takes one each `period` seconds.
  private func seconds(period: Double, stoppedAfter stop: Double = .infinity) throws -> Double {
    let start = ContinuousClock.now
    var time = 0.0
    try drain(isStopped: { time >= stop }, now: { start + .seconds(time) }) {
      time += 0.1
      return max(0, 1000 - Int(time / period))
    }
    return time
  }

  @Test func `a card that takes its frames is waited for`() throws {
    #expect(try 10...10.2 ~= seconds(period: 0.01))
  }

  @Test func `a card that takes none is waited for half a minute`() throws {
    #expect(try 30...30.3 ~= seconds(period: .infinity))
  }

  @Test(arguments: [1, 2.9, 29])
  func `a card that takes some now and then is waited for a minute`(period: Double) throws {
    #expect(try 60...60.3 ~= seconds(period: period))
  }

  @Test(arguments: [0.05, 0.9, 29])
  func `nothing is waited for longer than two seconds after Ctrl-C`(period: Double) throws {
    #expect(try 2...2.3 ~= seconds(period: period, stoppedAfter: 0))
    #expect(try 7...7.3 ~= seconds(period: period, stoppedAfter: 5))
  }
}
