/// When a thread waits for interrupts.
public enum InterruptMode: String, Sendable, CaseIterable {
  /// Polls while frames come, sleeps when none has come for a while; polls where there are no interrupts.
  case auto
  /// Sleeps as soon as no frame is there.
  case on
  /// Polls always.
  case off
}

/// The rule by which a thread that serves some queues polls or sleeps.
///
/// It polls until none of its queues has had a frame for `patience`. Then it enables the interrupts, looks at
/// all of the queues once more, and sleeps only if they are still empty: a frame that comes before the
/// interrupt is enabled is seen by that look, one that comes later wakes the thread. After a frame, a wake-up
/// or a timeout it polls again.
struct AdaptivePolling {
  /// What to do after a look at all queues.
  enum Step { case poll, enable, sleep }
  private enum State: Equatable {
    case busy
    case idle(since: ContinuousClock.Instant)
    case enabled
  }

  /// How long the queues must have been empty; nil polls always.
  let patience: Duration?
  private var state = State.busy

  init(patience: Duration?) { self.patience = patience }

  /// Decides after a look that found `moved` frames.
  mutating func step(moved: Int, now: () -> ContinuousClock.Instant = { .now }) -> Step {
    guard let patience else { return .poll }
    if moved > 0 {
      state = .busy
      return .poll
    }
    switch state {
    case .busy where patience > .zero:
      state = .idle(since: now())
      return .poll
    case .idle(let since) where now() - since < patience: return .poll
    case .busy, .idle:
      state = .enabled
      return .enable
    case .enabled:
      state = .busy
      return .sleep
    }
  }
}
