import Ixy

/// One end of a cable between two emulated cards.
///
/// Both cards are on one thread. While the peer receives, a full cable makes this card wait, as the pause
/// frames of 802.3x would; while the peer's receiver is off, frames are dropped and counted.
public final class LinkWire: Wire {
  private let outgoing: Direction
  private let incoming: Direction
  /// What went over this end.
  public private(set) var counts = WireCounts()

  private init(outgoing: Direction, incoming: Direction) {
    self.outgoing = outgoing
    self.incoming = incoming
  }

  /// The two ends of a new cable.
  public static func pair() -> (LinkWire, LinkWire) {
    let (forth, back) = (Direction(), Direction())
    return (LinkWire(outgoing: forth, incoming: back), LinkWire(outgoing: back, incoming: forth))
  }

  /// "link".
  public var kind: String { "link" }
  /// The cable holds what finds no descriptor.
  public var waitsForDescriptors: Bool { true }
  /// Until one of the ends is closed.
  public var isConnected: Bool { outgoing.isOpen && incoming.isOpen }
  /// None: the peer is on the same thread.
  public var readiness: Int32? { nil }
  /// No while the cable is full and the peer receives.
  public var canSend: Bool { !outgoing.isListening || outgoing.frames.hasRoom }

  /// Puts a frame on the cable.
  public func send(_ frame: UnsafeRawBufferPointer) {
    counts.received += 1
    let passes = unsafe outgoing.isListening && outgoing.frames.push(frame)
    if !passes { counts.dropped += 1 }
  }

  /// The oldest frame on the cable.
  public func nextFrame() -> UnsafeRawBufferPointer? { unsafe incoming.frames.first }

  /// Takes the oldest frame off the cable.
  public func takeFrame() {
    incoming.frames.pop()
    counts.sent += 1
  }

  /// Frames that are on the cable when the receiver goes off are lost.
  public func receiverChanged(isOn: Bool) {
    incoming.isListening = isOn
    if !isOn { counts.dropped += UInt64(incoming.frames.removeAll()) }
  }

  /// Pulls the plug at this end.
  public func close() {
    receiverChanged(isOn: false)
    incoming.isOpen = false
    outgoing.isOpen = false
  }
}

/// What goes one way over a cable.
private final class Direction {
  let frames = FrameRing()
  var isListening = false
  var isOpen = true
}
