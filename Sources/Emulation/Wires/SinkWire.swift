import Ixy

/// The end of a line: takes every frame, and checks those that are numbered.
public final class SinkWire: Wire {
  private let checker = SequenceChecker()
  private var received: UInt64 = 0
  // Private: each look at it from a frame would else be one for exclusive access too.
  private var measuresLatency = false
  /// What was measured.
  public private(set) var latencies = Latencies()

  /// A sink that has seen nothing.
  public init() {}

  /// "sink".
  public var kind: String { "sink" }
  /// It never has a frame for the card.
  public var waitsForDescriptors: Bool { true }
  /// Always.
  public var isConnected: Bool { true }
  /// None: nothing ever comes.
  public var readiness: Int32? { nil }
  /// Always.
  public var canSend: Bool { true }

  /// What it has seen.
  public var counts: WireCounts {
    var counts = WireCounts()
    counts.received = received
    counts.lost = checker.lost
    counts.reordered = checker.reordered
    return counts
  }

  /// Measures from now on how long numbered frames were under way, which takes a reading of the clock for each.
  public func measureLatency() { measuresLatency = true }

  /// Counts a frame, and checks its number.
  public func send(_ frame: UnsafeRawBufferPointer) {
    received &+= 1
    unsafe checker.check(frame)
    if measuresLatency { unsafe measure(frame) }
  }

  @inline(never) private func measure(_ frame: UnsafeRawBufferPointer) {
    if let header = unsafe TestFrame(frame) { latencies.add(header, at: monotonicNanoseconds()) }
  }

  /// Nothing.
  public func nextFrame() -> UnsafeRawBufferPointer? { nil }
  /// There is nothing to take.
  public func takeFrame() {}
  /// Makes no difference.
  public func receiverChanged(isOn: Bool) {}
  /// Nothing is buffered.
  public func close() {}
}
