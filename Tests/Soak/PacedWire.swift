import Emulation
import Glibc
import Ixy

/// A generator's wire that comes in bursts, has a plug that can be pulled, and a gate that closes for the count.
///
/// Bursts let everything sleep in between: an hour of it shall not keep a processor busy. Whoever calls anything
/// but the methods of `Wire` keeps the emulation's thread out meanwhile.
final class PacedWire: Wire {
  /// Nanoseconds from one burst to the next.
  private static let period: UInt64 = 50_000_000

  private let inner: GeneratorWire
  private let framesPerBurst: Int
  private var left = 0
  private var nextBurst: UInt64 = 0
  /// Whether frames that find no descriptor wait for one.
  var waitsForDescriptors = true
  /// Whether the plug is in.
  var isConnected = true
  /// Whether anything passes; while it is closed, the card's counters stand still.
  var isOpen = false
  /// Whether the card is given frames.
  var isFeeding = true
  /// Frames that the card sent while the plug was out.
  private(set) var lostOnCable: UInt64 = 0

  init(_ inner: GeneratorWire, framesPerSecond: Int) {
    self.inner = inner
    framesPerBurst = max(1, framesPerSecond / 20)
  }

  let kind = "paced"
  let readiness: Int32? = nil
  var canSend: Bool { isOpen }
  var counts: WireCounts { inner.counts }

  func send(_ frame: UnsafeRawBufferPointer) {
    if isConnected { inner.send(frame) } else { lostOnCable += 1 }
  }

  func nextFrame() -> UnsafeRawBufferPointer? {
    guard isOpen, isFeeding, isConnected else { return nil }
    if left == 0 {
      let now = monotonic()
      if now < nextBurst { return nil }
      nextBurst = now + Self.period
      left = framesPerBurst
    }
    return inner.nextFrame()
  }

  func takeFrame() {
    left -= 1
    inner.takeFrame()
  }

  func receiverChanged(isOn: Bool) { inner.receiverChanged(isOn: isOn) }
  func close() { inner.close() }
  /// Makes no more frames.
  func stop() { inner.stop() }

  private func monotonic() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
  }
}
