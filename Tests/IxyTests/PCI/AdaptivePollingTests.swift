import Testing

@testable import Ixy

/// The rule by which a thread polls or sleeps.
@Suite struct AdaptivePollingTests {
  private let start = ContinuousClock.now

  private func step(_ polling: inout AdaptivePolling, moved: Int, at microseconds: Int)
    -> AdaptivePolling.Step
  {
    polling.step(moved: moved) { start + .microseconds(microseconds) }
  }

  @Test func `it polls until no frame has come for its patience`() {
    var polling = AdaptivePolling(patience: .microseconds(100))
    #expect(step(&polling, moved: 1, at: 0) == .poll)
    #expect(step(&polling, moved: 0, at: 50) == .poll)
    #expect(step(&polling, moved: 0, at: 149) == .poll)
    #expect(step(&polling, moved: 0, at: 150) == .enable)
  }

  @Test func `a frame starts its patience anew`() {
    var polling = AdaptivePolling(patience: .microseconds(100))
    #expect(step(&polling, moved: 0, at: 0) == .poll)
    #expect(step(&polling, moved: 1, at: 99) == .poll)
    #expect(step(&polling, moved: 0, at: 120) == .poll)
    #expect(step(&polling, moved: 0, at: 219) == .poll)
    #expect(step(&polling, moved: 0, at: 220) == .enable)
  }

  @Test func `it looks once more between enabling interrupts and sleeping`() {
    var polling = AdaptivePolling(patience: .zero)
    #expect(step(&polling, moved: 0, at: 0) == .enable)
    #expect(step(&polling, moved: 0, at: 0) == .sleep)
  }

  @Test func `a frame in that look keeps it awake`() {
    var polling = AdaptivePolling(patience: .zero)
    #expect(step(&polling, moved: 0, at: 0) == .enable)
    #expect(step(&polling, moved: 1, at: 0) == .poll)
    #expect(step(&polling, moved: 0, at: 0) == .enable)
  }

  @Test func `after a sleep it polls again`() {
    var polling = AdaptivePolling(patience: .microseconds(10))
    #expect(step(&polling, moved: 0, at: 0) == .poll)
    #expect(step(&polling, moved: 0, at: 10) == .enable)
    #expect(step(&polling, moved: 0, at: 10) == .sleep)
    #expect(step(&polling, moved: 0, at: 20) == .poll)
  }

  @Test func `without patience it never sleeps`() {
    var polling = AdaptivePolling(patience: nil)
    for second in 0..<100 { #expect(step(&polling, moved: 0, at: second * 1_000_000) == .poll) }
  }
}
