import CIxy
import Glibc

/// Sleeps until one of the queues that a thread serves has something, for that thread alone.
///
/// ```swift
/// while true {
///   let moved = serve(&queues)
///   try waiter.wait(moved: moved)
/// }
/// ```
///
/// All queues are in one epoll set: an idle one never delays the others. `AdaptivePolling` has the rule by
/// which it polls or sleeps.
public struct QueueWaiter: ~Copyable {
  private let epoll: FileDescriptor
  private let mode: InterruptMode
  private var polling: AdaptivePolling
  private var interrupts: [Interrupt] = []
  /// How often it has slept.
  public private(set) var sleeps = 0

  /// A waiter that waits for nothing yet.
  ///
  /// - Parameters:
  ///   - mode: Whether it sleeps at all.
  ///   - patience: With `auto`, how long all queues must have been empty before it sleeps. The default is
  ///     some ten times what a sleep and a wake-up cost.
  /// - Throws: When the kernel has no epoll set to give.
  public init(mode: InterruptMode = .auto, patience: Duration = .microseconds(100))
    throws(DeviceError)
  {
    self.mode = mode
    let patience: Duration? =
      switch mode {
      case .auto: patience
      case .on: .zero
      case .off: nil
      }
    polling = AdaptivePolling(patience: patience)
    epoll = FileDescriptor(owning: epoll_create1(Int32(EPOLL_CLOEXEC)))
    if epoll.number < 0 { throw .lastError("Make an epoll set") }
  }

  /// Sets up the interrupts of a card as the mode asks for: before its first queue is taken.
  ///
  /// - Parameters:
  ///   - device: The card.
  ///   - throttle: The shortest time between two interrupts of a queue.
  /// - Returns: Its interrupts; nil when it is polled.
  /// - Throws: When interrupts are wanted, and the card or the way to it has none.
  public func enableInterrupts(
    of device: any EthernetDevice, throttle: Duration = .microseconds(20)
  ) throws(DeviceError) -> DeviceInterrupts? {
    if mode == .off { return nil }
    do {
      return try device.enableInterrupts(throttle: throttle)
    } catch {
      if mode == .auto, case .refused = error { return nil }
      throw error
    }
  }

  /// Wakes up for an interrupt, too; nil stands for a queue without, for which it will always poll.
  public mutating func add(_ interrupt: Interrupt?) throws(DeviceError) {
    guard let interrupt else { return polling = AdaptivePolling(patience: nil) }
    if interrupts.contains(where: { $0 === interrupt }) { return }
    try add(file: interrupt.eventFD)
    interrupts.append(interrupt)
  }

  /// Wakes up whenever a file is readable, too; it stays the caller's, and is not read.
  public mutating func add(file: Int32) throws(DeviceError) {
    var event = unsafe epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(fd: file))
    if unsafe epoll_ctl(epoll.number, EPOLL_CTL_ADD, file, &event) != 0 {
      throw .lastError("Wait for a file")
    }
  }

  /// Called after each look at all queues; sleeps when it is time.
  ///
  /// - Parameters:
  ///   - moved: The frames that were found, in all queues together; more than 0 also where some were left
  ///     behind, for want of a buffer or of room in a transmit ring: no interrupt comes for them again.
  ///   - timeout: The longest sleep.
  /// - Throws: When the kernel cannot wait.
  @inline(__always)
  public mutating func wait(moved: Int, timeout: Duration = .seconds(1)) throws(DeviceError) {
    switch polling.step(moved: moved) {
    case .poll: break
    case .enable: for interrupt in interrupts { interrupt.enable() }
    case .sleep: try sleep(timeout)
    }
  }

  private mutating func sleep(_ timeout: Duration) throws(DeviceError) {
    sleeps += 1
    // Up to the next millisecond: a wait for less than one would be a busy one.
    let (seconds, attoseconds) = timeout.components
    let milliseconds = max(
      0, seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    var event = unsafe epoll_event()
    let limit = Int32(clamping: milliseconds)
    let found = unsafe epoll_wait(epoll.number, &event, 1, limit)
    // A signal ends the sleep, too: its handler may have set a flag.
    if found < 0, errno != EINTR { throw .lastError("Wait for an interrupt") }
    if found > 0 { for interrupt in interrupts { interrupt.drain() } }
  }
}
