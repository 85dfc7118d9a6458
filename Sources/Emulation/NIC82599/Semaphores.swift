/// The semaphores between drivers and firmware: SWSM and SW_FW_SYNC (reference, section 3).
///
/// No firmware contends. A reset of the card leaves them alone, as a driver may hold one across it.
struct Semaphores {
  /// SMBI: a read that finds it clear takes it.
  private static let smbi: UInt32 = 1 << 0
  /// SWESMBI (1), which reads 1 once it was granted, and WMNG (2).
  private static let stored: UInt32 = 0x6
  /// REGSMP, X540 and later: a read that finds it clear takes it.
  private static let regsmp: UInt32 = 1 << 31

  private let hasRegisterSemaphore: Bool
  private var swsm: UInt32 = 0
  private var sync: UInt32 = 0

  init(hasRegisterSemaphore: Bool) { self.hasRegisterSemaphore = hasRegisterSemaphore }

  /// Reads SWSM and takes SMBI.
  mutating func readSWSM() -> UInt32 {
    defer { swsm |= Self.smbi }
    return swsm
  }

  /// Writes SWSM: a 0 gives SMBI back, a 1 leaves it as it is.
  mutating func writeSWSM(_ value: UInt32) {
    swsm = swsm & value & Self.smbi | value & Self.stored
  }

  /// Reads SW_FW_SYNC; where it has a semaphore of its own, takes that.
  mutating func readSync() -> UInt32 {
    defer { if hasRegisterSemaphore { sync |= Self.regsmp } }
    return sync
  }

  /// Writes SW_FW_SYNC: who owns what, by agreement.
  mutating func writeSync(_ value: UInt32) {
    guard hasRegisterSemaphore else {
      sync = value
      return
    }
    sync = value & ~Self.regsmp | sync & value & Self.regsmp
  }
}
