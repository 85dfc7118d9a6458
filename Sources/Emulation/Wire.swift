import Ixy

/// Where the cable of an emulated card goes.
///
/// The card calls it from its own thread. Frames have no FCS; what a wire gives is at least 60 bytes.
public protocol Wire: AnyObject {
  /// What the user wrote to get it: "tap", "pcap", ...
  var kind: String { get }
  /// Whether a frame that finds no descriptor waits (true) or is lost and counted by the card (false).
  var waitsForDescriptors: Bool { get }
  /// Whether the other end is there: the card's link state.
  var isConnected: Bool { get }
  /// A descriptor that becomes readable when a frame may be there, for hosts that sleep; nil: look often.
  var readiness: Int32? { get }
  /// Whether the wire can take a frame now; a card keeps what it has to send until then.
  ///
  /// Asked in every step: before it answers, a wire sends what the other end had no room for.
  var canSend: Bool { get }
  /// What went over it.
  var counts: WireCounts { get }

  /// Takes a frame that the card sends. The bytes are valid during the call only.
  func send(_ frame: UnsafeRawBufferPointer)
  /// The next frame for the card, without taking it away; nil when there is none. Valid until `takeFrame`.
  func nextFrame() -> UnsafeRawBufferPointer?
  /// Takes away the frame that `nextFrame` gave: it was received, or lost.
  func takeFrame()
  /// The card's receiver was switched on or off. A wire starts when there is someone to receive.
  func receiverChanged(isOn: Bool)
  /// Writes out what is buffered. Called before the card goes.
  func close() throws(DeviceError)
}

/// What went over a wire, seen from outside the card.
public struct WireCounts: Equatable, Sendable {
  /// Frames that the wire gave to the card.
  public var sent: UInt64 = 0
  /// Frames that the card put on the wire.
  public var received: UInt64 = 0
  /// Numbered frames that should have come and did not.
  public var lost: UInt64 = 0
  /// Numbered frames that came after a later one, or twice.
  public var reordered: UInt64 = 0
  /// Frames, in either direction, that the other end could not take or lost on its side of the wire.
  public var dropped: UInt64 = 0

  /// All zero.
  public init() {}
}

/// The sizes of frames on a wire, in bytes without FCS.
public enum FrameSize {
  /// Addresses and type: what is shorter is no frame.
  public static let header = 14
  /// What shorter frames are padded to.
  public static let minimum = 60
  /// More than any card takes: what is longer is dropped.
  public static let maximum = 16384
}
