import CIxy
import Emulation
import Glibc

extension VFIOUserServer {
  /// Serves until `stop` says so: answers messages, and lets the model work in between.
  ///
  /// Busy, it polls; idle, it sleeps a millisecond at a time, so that `stop` is asked at least as often as
  /// a hundred times a second.
  ///
  /// - Parameters:
  ///   - extra: Descriptors that become readable when the model has work: its wire's `readiness`.
  ///   - stop: Asked after every round.
  public func run(extra: [Int32] = [], until stop: () -> Bool) {
    Self.run([self], extra: extra, until: stop)
  }

  /// Serves several devices in one thread, cards that are cabled together for example.
  ///
  /// - Parameters:
  ///   - servers: The devices, each with its own path and client.
  ///   - extra: Descriptors that become readable when a model has work: its wire's `readiness`.
  ///   - stop: Asked after every round.
  public static func run(
    _ servers: [VFIOUserServer], extra: [Int32] = [], until stop: () -> Bool
  ) {
    var idle = IdlePauses(extra: extra)
    while !stop() {
      var work = servers.reduce(0) { $0 + $1.poll() }
      for _ in 0..<stepsPerPoll {
        let moved = servers.reduce(0) { $0 + $1.step() }
        if moved == 0 { break }
        work += moved
      }
      if work > 0 { idle.reset() } else { idle.pause(servers) }
    }
  }

  /// A look at the sockets is a system call; the models step this often for each.
  private static let stepsPerPoll = 16
}

/// How a server that has nothing to do waits: the longer it lasts, the longer each pause.
///
/// A doorbell in shared pages wakes nobody, so that the first frame after a silence waits for the end of a
/// pause: none in the first 100 µs or so of idleness, then up to 50 µs, 200 µs after 5 ms, 1 ms after 100 ms.
private struct IdlePauses {
  private let extra: [Int32]
  private var rounds = 0
  /// Whether the last pause ended because of `extra`.
  ///
  /// When that brought no work, nobody takes what is there,
  /// and waiting for it again would be a busy loop.
  private var wasWokenByExtra = false

  init(extra: [Int32]) { self.extra = extra }

  mutating func reset() {
    rounds = 0
    wasWokenByExtra = false
  }

  mutating func pause(_ servers: [VFIOUserServer]) {
    rounds += 1
    var entries = servers.map(\.pollEntry)
    if !wasWokenByExtra {
      entries += extra.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    }
    let isServing = servers.contains { $0.hasClient }
    let microseconds =
      switch rounds {
      case ...100: 0
      case ...200: 50
      case ...700: 200
      default: isServing ? 1000 : 10_000
      }
    if microseconds == 0 { return }
    // SAFETY: the kernel writes into the entries of `entries` only.
    _ = unsafe ixy_poll(&entries, UInt(entries.count), microseconds * 1000)
    if entries.dropFirst(servers.count).contains(where: { $0.revents != 0 }) {
      wasWokenByExtra = true
    }
  }
}
