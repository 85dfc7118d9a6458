import Ixy

/// The interrupt causes, masks and vectors of an 82599 (reference, section 4).
///
/// A cause is sent once: when it comes up, when it is unmasked, or when software sets it. The causes of
/// queues are 64 bits wide, one for each MSI-X vector; EICR and its masks show the lower 16 of them, and
/// above them the other causes.
@safe final class InterruptUnit {
  // SAFETY: both arrays have `queueCount` entries, and each index is checked against it.
  /// How PCI config space wants interrupts.
  enum Delivery { case none, line, message, vectors }

  /// Bit 31, OTHER: one of the causes 29:16 is there.
  static let other: UInt32 = 1 << 31
  static let linkStatusChange: UInt32 = 1 << 20
  private static let queueCount = 128
  private static let tcpTimer: UInt32 = 1 << 30
  private static let otherCauses: UInt32 = 0x3FFF_0000
  private static let upperHalf: UInt32 = 0xFFFF_0000

  /// GPIE: MSIX_MODE (4), OCD (5), EIAME (30).
  private enum GPIE {
    static let msixMode: UInt32 = 1 << 4
    static let otherClearDisable: UInt32 = 1 << 5
    static let autoMaskEnable: UInt32 = 1 << 30
  }

  /// Where interrupts go.
  var sink: (any InterruptSink)?
  /// What config space says.
  var delivery = Delivery.none
  /// Messages are masked as a whole; they wait.
  var isHeld = false
  /// The time in nanoseconds, for throttling.
  var now: () -> UInt64 = monotonicNanoseconds

  /// What has come since the last delivery, as bits of the cause.
  private var raised: UInt64 = 0
  /// What each queue raises; here and not in arrays, because every poll asks.
  private let receiveCauses = UnsafeMutablePointer<UInt64>.allocate(capacity: queueCount)
  private let transmitCauses = UnsafeMutablePointer<UInt64>.allocate(capacity: queueCount)
  private var timerVector: Int?
  private var otherVector: Int?

  private var queueCauses: UInt64 = 0
  private var queueFresh: UInt64 = 0
  private var queueMask: UInt64 = 0
  private var queueAutoMask: UInt64 = 0
  private var others: UInt32 = 0
  private var othersFresh: UInt32 = 0
  private var othersMask: UInt32 = 0
  private var othersAutoMask: UInt32 = 0
  private var autoClear: UInt32 = 0
  private var mode: UInt32 = 0
  private var isLineUp = false
  private var throttle = InterruptThrottle()
  private var vectorBytes = [UInt8](repeating: 0, count: 256)

  init() {
    unsafe receiveCauses.initialize(repeating: 0, count: Self.queueCount)
    unsafe transmitCauses.initialize(repeating: 0, count: Self.queueCount)
  }

  deinit {
    unsafe receiveCauses.deallocate()
    unsafe transmitCauses.deallocate()
  }

  /// A frame was written back to receive queue `queue`.
  @inline(__always) func received(queue: Int) {
    precondition(queue >= 0 && queue < Self.queueCount)
    unsafe raised |= receiveCauses[queue]
  }
  /// A descriptor of transmit queue `queue` was written back.
  @inline(__always) func transmitted(queue: Int) {
    precondition(queue >= 0 && queue < Self.queueCount)
    unsafe raised |= transmitCauses[queue]
  }
  /// Sets causes of EICR bits 31:16: link change, missed frames, ...
  func other(_ causes: UInt32) {
    others |= causes & Self.upperHalf
    othersFresh |= causes & Self.upperHalf
  }

  /// Delivers what is pending, unmasked and not throttled; called once at the end of each step.
  func deliver() {
    merge()
    if mode & GPIE.msixMode != 0 {
      // What comes before config space has MSI-X on waits.
      let isFresh = (queueFresh & queueMask) != 0 || (othersFresh & othersMask) != 0
      if isFresh, delivery == .vectors, !isHeld { sendVectors() }
    } else if delivery == .line {
      driveLine()
    } else if !isHeld, delivery != .none, isFreshUnmasked {
      sendMessage()
    }
  }

  /// The host's end of the line was unmasked.
  func unmaskedLine() {
    isLineUp = false
    deliver()
  }

  /// Everything as after power-on, but for what config space says.
  func reset() {
    raised = 0
    unsafe receiveCauses.initialize(repeating: 0, count: Self.queueCount)
    unsafe transmitCauses.initialize(repeating: 0, count: Self.queueCount)
    (timerVector, otherVector) = (nil, nil)
    (queueCauses, queueFresh, queueMask, queueAutoMask) = (0, 0, 0, 0)
    (others, othersFresh, othersMask, othersAutoMask) = (0, 0, 0, 0)
    (autoClear, mode, isLineUp) = (0, 0, false)
    throttle = InterruptThrottle()
    for place in vectorBytes.indices { vectorBytes[place] = 0 }
  }

  // MARK: Registers

  /// The value of one of this unit's registers that stores nothing.
  func read(_ effect: RegisterEffect, index: Int) -> UInt32 {
    merge()
    switch effect {
    case .eicr: return readAndClearCauses()
    case .eics: return causes
    case .eims, .eimc: return UInt32(truncatingIfNeeded: queueMask) & 0xFFFF | othersMask
    case .eiam: return UInt32(truncatingIfNeeded: queueAutoMask) & 0xFFFF | othersAutoMask
    case .eicsExtended: return word(queueCauses, index)
    case .eimsExtended, .eimcExtended: return word(queueMask, index)
    case .eiamExtended: return word(queueAutoMask, index)
    default: return 0
    }
  }

  /// A write to one of this unit's registers; what is unmasked and pending after it is sent at once.
  func write(_ effect: RegisterEffect, index: Int, _ value: UInt32) {
    merge()
    let low = UInt64(value & 0xFFFF)
    let high = value & Self.upperHalf
    let wide = UInt64(value) << UInt64(32 * (index & 1))
    switch effect {
    case .eicr: clear(value)
    case .eics: set(low, high)
    case .eicsExtended: set(wide, 0)
    case .eims: unmask(low, high)
    case .eimsExtended: unmask(wide, 0)
    case .eimc: (queueMask, othersMask) = (queueMask & ~low, othersMask & ~high)
    case .eimcExtended: queueMask &= ~wide
    case .eiac: autoClear = value
    case .eiam: (queueAutoMask, othersAutoMask) = (queueAutoMask & ~0xFFFF | low, high)
    case .eiamExtended:
      queueAutoMask = queueAutoMask & ~(0xFFFF_FFFF << UInt64(32 * (index & 1))) | wide
    case .gpie:
      mode = value
      mapCauses()
    case .eitr: throttle.set(index, value, now: now())
    case .ivar:
      for i in 0..<4 where index < 64 {
        vectorBytes[4 * index + i] = UInt8(truncatingIfNeeded: value >> UInt32(8 * i))
      }
      mapCauses()
    case .ivarMisc:
      timerVector = value & 0x80 != 0 ? Int(value & 0x3F) : nil
      otherVector = value & 0x8000 != 0 ? Int(value >> 8 & 0x3F) : nil
    default: break
    }
    deliver()
  }

  // MARK: Causes and masks

  /// What EICR shows.
  private var causes: UInt32 {
    let summary = others & Self.otherCauses != 0 ? Self.other : 0
    return UInt32(truncatingIfNeeded: queueCauses) & 0xFFFF | others | summary
  }

  private var isFreshUnmasked: Bool {
    queueFresh & queueMask & 0xFFFF != 0 || othersFresh & othersMask != 0
  }

  private func merge() {
    queueCauses |= raised
    queueFresh |= raised
    raised = 0
  }

  private func word(_ bits: UInt64, _ index: Int) -> UInt32 {
    UInt32(truncatingIfNeeded: bits >> UInt64(32 * (index & 1)))
  }

  private func set(_ queues: UInt64, _ rest: UInt32) {
    queueCauses |= queues
    queueFresh |= queues
    others |= rest
    othersFresh |= rest
  }

  /// A cause that came while it was masked is sent now.
  private func unmask(_ queues: UInt64, _ rest: UInt32) {
    queueMask |= queues
    othersMask |= rest
    queueFresh |= queueCauses & queues
    othersFresh |= others & rest
  }

  private func readAndClearCauses() -> UInt32 {
    let value = causes
    // With OCD set, a read clears the other causes only.
    clear(mode & GPIE.otherClearDisable != 0 ? value & (Self.otherCauses | Self.other) : value)
    deliver()
    return value
  }

  private func clear(_ bits: UInt32) {
    queueCauses &= ~UInt64(bits & 0xFFFF)
    queueFresh &= queueCauses
    others &= ~(bits & Self.upperHalf)
    othersFresh &= others
    if mode & GPIE.msixMode == 0 {
      queueMask &= ~(queueAutoMask & UInt64(bits & 0xFFFF))
      othersMask &= ~(othersAutoMask & bits)
    } else if bits & Self.upperHalf != 0 {
      // What is left of the other causes asks again: its handler may have looked before it came.
      othersFresh |= others
    }
  }

  /// Which cause bit each queue sets: its vector, or without MSI-X one of 16.
  private func mapCauses() {
    let mask: UInt8 = mode & GPIE.msixMode != 0 ? 0x3F : 0x0F
    func cause(_ byte: UInt8) -> UInt64 { byte & 0x80 != 0 ? 1 << UInt64(byte & mask) : 0 }
    for queue in 0..<Self.queueCount {
      unsafe receiveCauses[queue] = cause(vectorBytes[2 * queue])
      unsafe transmitCauses[queue] = cause(vectorBytes[2 * queue + 1])
    }
  }

  // MARK: Delivery

  /// MSI-X: a message for each vector that has something to tell.
  private func sendVectors() {
    let time = now()
    var ready = queueFresh & queueMask
    while ready != 0 {
      let vector = ready.trailingZeroBitCount
      let bit = UInt64(1) << UInt64(vector)
      ready &= ~bit
      guard throttle.allows(vector, at: time) else { continue }
      queueFresh &= ~bit
      // DATASHEET-UNSEEN: EIAC has no bits for vectors from 16 on; their causes, which no register
      // could clear, are cleared when they are sent.
      if vector >= 16 || autoClear & UInt32(bit) != 0 { queueCauses &= ~bit }
      if mode & GPIE.autoMaskEnable != 0 { queueMask &= ~(queueAutoMask & bit) }
      sink?.signal(.msix, vector: vector)
    }
    // Bit 31 counts only where software has set it: a masked cause below it must stay quiet.
    sendOthers(othersFresh & othersMask & ~Self.tcpTimer, otherVector, at: time)
    sendOthers(othersFresh & othersMask & Self.tcpTimer, timerVector, at: time)
  }

  private func sendOthers(_ bits: UInt32, _ vector: Int?, at time: UInt64) {
    guard bits != 0, let vector, throttle.allows(vector, at: time) else { return }
    othersFresh &= ~bits
    others &= ~(bits & autoClear & Self.tcpTimer)
    if mode & GPIE.autoMaskEnable != 0 { othersMask &= ~(othersAutoMask & bits) }
    sink?.signal(.msix, vector: vector)
  }

  /// One message for all: MSI, or vector 0 when MSI-X is on in config space but not in GPIE.
  private func sendMessage() {
    guard throttle.allows(0, at: now()) else { return }
    let sent = (queueFresh & queueMask, othersFresh & othersMask)
    queueFresh = 0
    othersFresh &= ~sent.1
    if mode & GPIE.autoMaskEnable != 0 {
      queueMask &= ~(queueAutoMask & sent.0)
      othersMask &= ~(othersAutoMask & sent.1)
    }
    sink?.signal(delivery == .vectors ? .msix : .msi, vector: 0)
  }

  /// INTx: up as long as an unmasked cause is there; the host hears of it when it goes up.
  private func driveLine() {
    (queueFresh, othersFresh) = (0, 0)
    guard queueCauses & queueMask & 0xFFFF != 0 || others & othersMask != 0 else {
      isLineUp = false
      return
    }
    guard !isLineUp, throttle.allows(0, at: now()) else { return }
    isLineUp = true
    sink?.signal(.intx, vector: 0)
  }

  /// Whether the line is up, as the status register of config space shows.
  var isLinePending: Bool {
    mode & GPIE.msixMode == 0
      && (queueCauses & queueMask & 0xFFFF != 0 || others & othersMask != 0)
  }
}
