import Glibc
import Ixy

/// Runs emulated cards on one thread of their own, which all cards of a process share.
///
/// Drivers on other threads reach the cards through `EmulatedDevice`: doorbells are plain stores to shared
/// pages that this thread polls, all else is a call under its lock. Stop the drivers first: a card answers
/// also after the end, but moves nothing any more.
public final class EmulationThread: @unchecked Sendable {
  private let loop = EmulationLoop()
  // Only for the one thread that starts and stops.
  private var thread: pthread_t?

  /// A thread that is not started yet.
  public init() {}

  deinit { join() }

  /// Adds a card, before or after the start.
  ///
  /// - Parameters:
  ///   - model: The card.
  ///   - wire: Its wire, by which the thread is woken, and which `stop` closes.
  /// - Returns: What a driver opens.
  public func add(_ model: any DeviceModel, wire: any Wire) -> EmulatedDevice {
    loop.add(model, wire)
    return EmulatedDevice(model, on: self)
  }

  /// Starts moving frames.
  ///
  /// - Throws: `DeviceError` when the kernel gives no thread.
  public func start() throws(DeviceError) {
    guard thread == nil else { return }
    // Signals are for the threads that know what to do with them.
    var (all, before) = (sigset_t(), sigset_t())
    unsafe sigfillset(&all)
    // That one is its own: memory that somebody has taken away, which only a thread that does not block it survives.
    unsafe sigdelset(&all, SIGBUS)
    unsafe pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }
    var new = pthread_t()
    loop.begin()
    // The thread keeps the loop, not us: so that dropping us ends it.
    let context = unsafe Unmanaged.passRetained(loop)
    let code = unsafe pthread_create(
      &new, nil,
      { context in
        guard let context = unsafe context else { return nil }
        unsafe Unmanaged<EmulationLoop>.fromOpaque(context).takeRetainedValue().run()
        return nil
      }, context.toOpaque())
    guard code == 0 else {
      unsafe context.release()
      throw .system("Start the emulation", errno: code, advice: "")
    }
    thread = new
  }

  /// Ends the thread and closes the wires of its cards.
  ///
  /// - Throws: What the wires could not write out, or what went wrong with them before.
  public func stop() throws(DeviceError) {
    join()
    try loop.closeWires()
  }

  /// Ends the thread and waits for its end; the cards stay as they are.
  public func join() {
    guard let thread else { return }
    loop.end()
    pthread_join(thread, nil)
    self.thread = nil
  }

  /// Runs `body` while the thread does not touch its cards and wires.
  public func exclusively<Result, E: Error>(_ body: () throws(E) -> Result) throws(E) -> Result {
    try loop.exclusively(body)
  }
}
