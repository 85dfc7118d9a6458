import Ixy

/// A bad cable: on their way to the card, frames of another wire are lost or change places.
@safe public final class LossyWire: Wire {
  // SAFETY: `held` takes only frames that fit, and `heldLength` is what is in it.
  /// What is wrong with a cable; 0 is nothing.
  public struct Faults: Equatable, Sendable {
    /// Of so many frames the last is lost.
    public var lose = 0
    /// Of so many frames the last two change places.
    public var swap = 0

    /// A good cable.
    public init() {}
  }

  /// The wire behind the cable.
  public let inner: any Wire
  private let faults: Faults
  private var lost: UInt64 = 0
  /// The frames that came to the cable, the one that is next not counted.
  private var passed = 0
  /// A frame that waits until the one behind it has gone; none when its length is 0.
  private let held = UnsafeMutableRawBufferPointer.allocate(
    byteCount: FrameSize.maximum, alignment: 64)
  private var heldLength = 0
  private var isOvertaken = false

  /// Puts a bad cable before a wire.
  public init(_ inner: any Wire, _ faults: Faults) {
    self.inner = inner
    self.faults = faults
  }

  deinit { unsafe held.deallocate() }

  /// What the user wrote for the wire.
  public var kind: String { inner.kind }
  /// As the wire behind it.
  public var waitsForDescriptors: Bool { inner.waitsForDescriptors }
  /// As the wire behind it.
  public var isConnected: Bool { inner.isConnected }
  /// As the wire behind it.
  public var readiness: Int32? { inner.readiness }
  /// As the wire behind it.
  public var canSend: Bool { inner.canSend }

  /// What went over the wire; dropped is also what the cable lost.
  public var counts: WireCounts {
    var counts = inner.counts
    counts.dropped += lost + (heldLength > 0 ? 1 : 0)
    return counts
  }

  /// Frames from the card pass as they are.
  public func send(_ frame: UnsafeRawBufferPointer) { unsafe inner.send(frame) }

  /// The next frame that gets through.
  public func nextFrame() -> UnsafeRawBufferPointer? {
    if isOvertaken { return unsafe UnsafeRawBufferPointer(rebasing: held[..<heldLength]) }
    while let frame = unsafe inner.nextFrame() {
      if isDue(faults.lose, ahead: 1) {
        lost += 1
      } else if heldLength == 0, isDue(faults.swap, ahead: 2), unsafe frame.count <= held.count {
        unsafe held.copyMemory(from: frame)
        heldLength = frame.count
      } else {
        return unsafe frame
      }
      takeFromInner()
    }
    return nil
  }

  /// Takes that frame away; a frame that was held is next.
  public func takeFrame() {
    if isOvertaken {
      heldLength = 0
      isOvertaken = false
    } else {
      takeFromInner()
      isOvertaken = heldLength > 0
    }
  }

  /// As the wire behind it.
  public func receiverChanged(isOn: Bool) { inner.receiverChanged(isOn: isOn) }

  /// Ends the wire behind it.
  public func close() throws(DeviceError) { try inner.close() }

  private func isDue(_ period: Int, ahead: Int) -> Bool {
    period > 0 && (passed + ahead) % period == 0
  }

  private func takeFromInner() {
    inner.takeFrame()
    passed += 1
  }
}
