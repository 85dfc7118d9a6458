import Ixy

/// A plug that sends back to a card whatever it sends.
public final class LoopWire: Wire {
  private let frames = FrameRing()
  private var isListening = false
  /// What went over it.
  public private(set) var counts = WireCounts()

  /// A plug with nothing in it.
  public init() {}

  /// "loop".
  public var kind: String { "loop" }
  /// The plug holds what finds no descriptor.
  public var waitsForDescriptors: Bool { true }
  /// Always.
  public var isConnected: Bool { true }
  /// None: only the card itself puts frames here.
  public var readiness: Int32? { nil }
  /// No while the plug is full and the card receives.
  public var canSend: Bool { !isListening || frames.hasRoom }

  /// Keeps a frame to give it back; drops it while nobody receives.
  public func send(_ frame: UnsafeRawBufferPointer) {
    counts.received += 1
    let passes = unsafe isListening && frames.push(frame)
    if !passes { counts.dropped += 1 }
  }

  /// The oldest frame in the plug.
  public func nextFrame() -> UnsafeRawBufferPointer? { unsafe frames.first }

  /// Takes the oldest frame away.
  public func takeFrame() {
    frames.pop()
    counts.sent += 1
  }

  /// Frames that are in the plug when the receiver goes off are lost.
  public func receiverChanged(isOn: Bool) {
    isListening = isOn
    if !isOn { counts.dropped += UInt64(frames.removeAll()) }
  }

  /// Nothing is buffered that somebody waits for.
  public func close() {}
}
