import Ixy

/// The interrupt causes, masks and vectors of an 82599 (reference, section 4).
final class InterruptUnit {
  /// A frame was written back to receive queue `queue`.
  @inline(__always) func received(queue: Int) {}
  /// A descriptor of transmit queue `queue` was written back.
  @inline(__always) func transmitted(queue: Int) {}
  /// Sets causes of EICR bits 31:16: link change, missed frames, ...
  func other(_ causes: UInt32) {}
  /// Delivers what is pending, unmasked and not throttled; called once at the end of each step.
  func deliver() {}
}
