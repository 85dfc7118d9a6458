import Glibc
import Ixy

/// Makes numbered frames, as fast as the card takes them or at a rate, and checks those that come back.
@safe public final class GeneratorWire: Wire {
  // SAFETY: `base` has room for `batch` frames `stride` apart, `end` lies behind the last that was
  // made and `cursor` at one of them or there.
  /// What a generator sends.
  public struct Settings: Equatable, Sendable {
    /// How many frames; nil is no end.
    public var count: UInt64?
    /// How fast; nil is as fast as the card takes them.
    public var rate: FrameRate?
    /// The size of each in bytes, without FCS.
    public var size = FrameSize.minimum
    /// How many flows they belong to, in turn.
    public var flows = 1

    /// Shortest frames of one flow, without end and without a rate.
    public init() {}
  }

  /// Frames are made this many at a time: one clock reading, and the stores are done when they are copied.
  private static let batch = 32
  /// Time that was lost for longer than this is not caught up with: the host was stopped.
  private static let catchUp = 0.01

  private let settings: Settings
  private let template: TestFrameTemplate
  private let framesPerSecond: Double?
  private let checker = SequenceChecker()
  private let base: UnsafeMutableRawPointer
  private let stride: Int
  /// The next frame, and the end of those that are made.
  private var cursor: UnsafeMutableRawPointer
  private var end: UnsafeMutableRawPointer
  private var isOn = false
  private var remaining: UInt64
  private var flow = 0
  private var sequence: UInt64 = 0
  /// With a rate: when it began, in nanoseconds, and what was made since.
  private var began: UInt64 = 0
  private var made = 0.0
  /// Read once a batch; tests have their own.
  var clock: () -> UInt64 = monotonicNanoseconds
  private var sent: UInt64 = 0
  private var received: UInt64 = 0

  /// A generator that waits for a receiver.
  ///
  /// - Parameters:
  ///   - settings: What to send; size and flows within their limits.
  ///   - destination: The address that the frames go to: the card's own.
  ///   - stream: A number that tells this run from others.
  public init(_ settings: Settings, destination: MACAddress, stream: UInt16) {
    precondition((1...TestFrame.maximumFlows).contains(settings.flows))
    self.settings = settings
    remaining = settings.count ?? .max
    framesPerSecond = settings.rate?.framesPerSecond(size: settings.size)
    let source = MACAddress(bits: 0x02_69_78_79_67_65)
    template = TestFrameTemplate(
      size: settings.size, destination: destination, source: source, stream: stream)
    stride = (settings.size + 63) & ~63
    unsafe base = .allocate(byteCount: Self.batch * stride, alignment: 64)
    for i in 0..<Self.batch { unsafe template.write(to: base + i * stride) }
    unsafe cursor = unsafe base
    unsafe end = unsafe base
  }

  deinit { unsafe base.deallocate() }

  /// "generator".
  public var kind: String { "generator" }
  /// Without a rate it waits; with one, what finds no descriptor is lost.
  public var waitsForDescriptors: Bool { framesPerSecond == nil }
  /// Always.
  public var isConnected: Bool { true }
  /// None: look often.
  public var readiness: Int32? { nil }
  /// Always.
  public var canSend: Bool { true }

  /// What it has sent and seen.
  public var counts: WireCounts {
    var counts = WireCounts()
    counts.sent = sent
    counts.received = received
    counts.lost = checker.lost
    counts.reordered = checker.reordered
    return counts
  }

  /// Counts a frame that comes back, and checks its number.
  public func send(_ frame: UnsafeRawBufferPointer) {
    received &+= 1
    unsafe checker.check(frame)
  }

  /// The next frame, if it is time for it.
  public func nextFrame() -> UnsafeRawBufferPointer? {
    if unsafe cursor == end || !isOn {
      guard makeFrames() else { return nil }
    }
    return unsafe UnsafeRawBufferPointer(start: cursor, count: template.size)
  }

  /// Goes on to the frame after this one.
  public func takeFrame() {
    precondition(unsafe cursor < end, "no frame was given")
    unsafe cursor += stride
    sent &+= 1
  }

  /// Starts, or goes on; the time in between does not count for the rate.
  public func receiverChanged(isOn: Bool) {
    if isOn && !self.isOn { restartRate(at: clock()) }
    self.isOn = isOn
  }

  /// Makes no more frames, whatever its count says.
  public func stop() {
    remaining = 0
    unsafe end = unsafe cursor
  }

  /// Nothing is buffered.
  public func close() {}

  private func restartRate(at now: UInt64) {
    began = now
    made = 0
  }

  /// Makes the next few frames; false when there are none to make now.
  @inline(never) private func makeFrames() -> Bool {
    guard isOn else { return false }
    if unsafe cursor < end { return true }
    let now = clock()
    let count = Int(min(remaining, UInt64(framesDue(at: now))))
    if count == 0 { return false }
    remaining -= UInt64(count)
    made += Double(count)
    unsafe cursor = unsafe base
    unsafe end = unsafe base + count * stride
    var frame = unsafe base
    while unsafe frame < end {
      unsafe template.number(frame, flow: flow, sequence: sequence, time: now)
      unsafe frame += stride
      flow += 1
      if flow == settings.flows {
        flow = 0
        sequence &+= 1
      }
    }
    return true
  }

  /// How many frames may be made now, at most a batch.
  private func framesDue(at now: UInt64) -> Int {
    guard let rate = framesPerSecond else { return Self.batch }
    let due = Double(now &- began) * 1e-9 * rate - made
    if due > max(rate * Self.catchUp, Double(Self.batch)) {
      restartRate(at: now)
      return 1
    }
    return Int(max(0, min(due, Double(Self.batch))))
  }
}
