import CIxy
import Glibc
import Ixy
import Synchronization

/// Runs emulated cards on one thread of their own, which all cards of a process share.
///
/// Drivers on other threads reach the cards through `EmulatedDevice`: doorbells are plain stores to shared
/// pages that this thread polls, all else is a call under its lock.
public final class EmulationThread: @unchecked Sendable {
  /// Rounds without work before the thread sleeps: some 100 microseconds.
  private static let patience = 1000
  /// The shortest and the longest sleep, in nanoseconds; a doorbell that rings meanwhile waits as long.
  private static let sleeps = 20_000...200_000

  private let lock = Mutex(())
  /// Threads that want the lock: this one stands back for them, because the lock itself is not fair.
  private let waiting = Atomic(0)
  private let isEnding = Atomic(false)
  private var models: [any DeviceModel] = []
  private var readiness: [pollfd] = []
  private var thread: pthread_t?

  /// A thread that is not started yet.
  public init() {}

  deinit { join() }

  /// Adds a card, before or after the start.
  ///
  /// - Parameters:
  ///   - model: The card.
  ///   - wire: Its wire, by which the thread is woken.
  /// - Returns: What a driver opens.
  public func add(_ model: any DeviceModel, wire: any Wire) -> EmulatedDevice {
    exclusively {
      models.append(model)
      if let file = wire.readiness {
        readiness.append(pollfd(fd: file, events: Int16(POLLIN), revents: 0))
      }
    }
    return EmulatedDevice(model, on: self)
  }

  /// Starts moving frames.
  ///
  /// - Throws: When the kernel gives no thread.
  public func start() throws(DeviceError) {
    guard thread == nil else { return }
    var new = pthread_t()
    let context = unsafe Unmanaged.passUnretained(self).toOpaque()
    let code = unsafe pthread_create(
      &new, nil,
      { context in
        guard let context = unsafe context else { return nil }
        unsafe Unmanaged<EmulationThread>.fromOpaque(context).takeUnretainedValue().run()
        return nil
      }, unsafe context)
    if code != 0 { throw .system("Start the emulation", errno: code, advice: "") }
    thread = new
  }

  /// Ends the thread and waits for its end; the cards stay as they are.
  public func join() {
    guard let thread else { return }
    isEnding.store(true, ordering: .relaxed)
    pthread_join(thread, nil)
    self.thread = nil
  }

  /// Runs `body` while the thread does not touch its cards.
  public func exclusively<Result, E: Error>(_ body: () throws(E) -> Result) throws(E) -> Result {
    waiting.add(1, ordering: .relaxed)
    defer { waiting.subtract(1, ordering: .relaxed) }
    lock._unsafeLock()
    defer { lock._unsafeUnlock() }
    return try body()
  }

  private func run() {
    var idle = 0
    while !isEnding.load(ordering: .relaxed) {
      while waiting.load(ordering: .relaxed) > 0 { sched_yield() }
      lock._unsafeLock()
      var moved = 0
      for model in models { moved += model.step() }
      lock._unsafeUnlock()
      idle = moved > 0 ? 0 : idle + 1
      if idle > Self.patience { sleep(round: idle - Self.patience) }
    }
  }

  /// Sleeps until a wire has something, longer each time.
  private func sleep(round: Int) {
    let longest = min(Self.sleeps.upperBound, Self.sleeps.lowerBound * round)
    _ = unsafe ixy_poll(&readiness, UInt(readiness.count), longest)
  }
}
