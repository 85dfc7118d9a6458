import Emulation
import Testing

@Suite struct LatenciesTests {
  @Test(arguments: [0, 63, 64, 1000, 1 << 40, UInt64.max - 1, .max])
  func `a time is known to 3 percent`(time: UInt64) throws {
    var latencies = Latencies()
    latencies.add(time)
    // Above it, or `max` would be the answer.
    latencies.add(.max)
    let found = try #require(latencies.percentile(0.5))
    #expect(found >= time && found - time <= time / 32)
    #expect(latencies.percentile(1) == .max && latencies.count == 2)
  }

  @Test func `of no frames there is no time`() {
    #expect(Latencies().percentile(0.5) == nil)
  }
}
