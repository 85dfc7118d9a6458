import CIxy
import Glibc
import Ixy
import Synchronization

/// What the thread of an `EmulationThread` runs: the cards take turns; without work it sleeps.
///
/// A doorbell in shared pages wakes nobody. So the loop looks all the time for a while after the last frame,
/// and then sleeps for a part of the time that nothing has come: a frame waits little longer than it would
/// have anyway, and an idle card costs little. Frames from the outside and register accesses do wake it.
final class EmulationLoop: @unchecked Sendable {
  /// The time without work after which it begins to sleep, in nanoseconds: a forwarder's way to its doorbell.
  private static let patience: UInt64 = 100_000
  /// Sleeps are this part of the time without work, up to a millisecond.
  private static let sleepShare: UInt64 = 4
  private static let longestSleep: UInt64 = 1_000_000

  // Models and wires are touched under the lock only.
  private let lock = Mutex(())
  /// Threads that want the lock: the loop stands back for them, because the lock itself is not fair.
  private let waiting = Atomic(0)
  private var models: [any DeviceModel] = []
  private var wires: [any Wire] = []
  private let isEnding = Atomic(false)
  private let isSleeping = Atomic(false)
  /// An eventfd that ends a sleep; where there is none, the sleep lasts its millisecond.
  private let alarm = FileDescriptor(owning: eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)))

  // Only the loop's own thread touches these.
  private var entries: [pollfd] = []
  private var idleSince: UInt64?
  /// Whether a wire said that it has a frame and no card took it: waiting for it would be a busy loop.
  private var isIgnoringWires = false

  func add(_ model: any DeviceModel, _ wire: any Wire) {
    exclusively {
      models.append(model)
      wires.append(wire)
    }
  }

  /// Runs `body` while the loop does not touch its cards, and wakes it afterwards.
  func exclusively<Result, E: Error>(_ body: () throws(E) -> Result) throws(E) -> Result {
    waiting.add(1, ordering: .relaxed)
    lock._unsafeLock()
    defer {
      lock._unsafeUnlock()
      waiting.subtract(1, ordering: .relaxed)
      wake()
    }
    return try body()
  }

  /// Lets the next `run` go on until `end`.
  ///
  /// Not part of `run`: `end` may come before the thread has got there.
  func begin() { isEnding.store(false, ordering: .sequentiallyConsistent) }

  /// Makes `run` return.
  func end() {
    isEnding.store(true, ordering: .sequentiallyConsistent)
    wake()
  }

  private func wake() {
    guard isSleeping.load(ordering: .sequentiallyConsistent) else { return }
    var one: UInt64 = 1
    _ = unsafe write(alarm.number, &one, 8)
  }

  /// Moves frames until `end`.
  func run() {
    while !isEnding.load(ordering: .relaxed) {
      while waiting.load(ordering: .relaxed) > 0 { sched_yield() }
      lock._unsafeLock()
      var moved = 0
      for model in models { moved += model.step() }
      if entries.count != wires.count + 1 { listWires() }
      lock._unsafeUnlock()
      if moved > 0 {
        idleSince = nil
        isIgnoringWires = false
      } else {
        rest()
      }
    }
  }

  private func listWires() {
    // A negative descriptor is passed over by poll.
    let files = [alarm.number] + wires.map { $0.readiness ?? -1 }
    entries = files.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
  }

  /// Sleeps, if nothing has come for long enough.
  private func rest() {
    let now = monotonicNanoseconds()
    let began = idleSince ?? now
    idleSince = began
    let idle = now - began
    if idle < Self.patience { return }
    isSleeping.store(true, ordering: .sequentiallyConsistent)
    if !isEnding.load(ordering: .sequentiallyConsistent) {
      sleep(nanoseconds: min(idle / Self.sleepShare, Self.longestSleep))
    }
    isSleeping.store(false, ordering: .relaxed)
  }

  private func sleep(nanoseconds: UInt64) {
    let count = isIgnoringWires ? 1 : entries.count
    let ready = unsafe ixy_poll(&entries, UInt(count), Int(nanoseconds))
    if ready <= 0 { return }
    if entries[0].revents != 0 {
      var value: UInt64 = 0
      _ = unsafe read(alarm.number, &value, 8)
    }
    isIgnoringWires = isIgnoringWires || entries.dropFirst().contains { $0.revents != 0 }
  }

  /// Closes every wire, also when one of them fails.
  func closeWires() throws(DeviceError) {
    try exclusively { () throws(DeviceError) in
      defer { wires = [] }
      try wires.closeAll()
    }
  }
}

extension Sequence<any Wire> {
  /// Closes every wire; then throws if one or more of them could not write out what they had.
  public func closeAll() throws(DeviceError) {
    var errors: [DeviceError] = []
    for wire in self {
      do throws(DeviceError) { try wire.close() } catch { errors.append(error) }
    }
    if errors.count == 1 { throw errors[0] }
    if errors.isEmpty { return }
    throw .refused(
      "Close the wires", found: errors.map(\.description).joined(separator: " "), advice: "")
  }
}
