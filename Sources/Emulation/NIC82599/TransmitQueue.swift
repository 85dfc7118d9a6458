import CIxy

/// One transmit queue: its ring, its contexts, and how descriptors go back (descriptor reference, 3.3).
@safe struct TransmitQueue {
  // SAFETY: descriptors come from `ring`; the head is written where the `DMATable` allows 4 bytes,
  // aligned.
  var isEnabled = false
  var ring = CardRing()
  /// The mapping that the last buffer was in.
  var window = DMAWindow()
  /// The two contexts, which stay until they are overwritten.
  private var contexts = (TransmitContext(), TransmitContext())
  /// Frames may go out from where they are.
  var allowsPlain = false
  /// Frames that were sent since the last poll.
  var frames = 0
  /// A frame was too long: its descriptors are passed over until its end.
  var isDiscarding = false
  /// How many descriptors there were when the last frame had no end yet; 0 when it had.
  var incomplete = 0
  /// Where the head is written instead of DD: TDWBAL.0.
  private var headWriteBack: UInt64?
  /// A descriptor with RS was passed since the last poll.
  private var reports = false
  /// The head that the driver knows.
  private var publishedHead = 0
  /// The bytes that were sent since the last poll.
  var octets = 0

  /// The descriptors of an enabled queue, from the registers.
  init(_ registers: RegisterFile, bank: Int) {
    isEnabled = true
    ring.latch(registers, bank: bank)
    publishedHead = ring.head
    refresh(registers, bank: bank)
  }

  /// A queue that is not enabled.
  init() {}

  /// Takes TDWBAL in.
  mutating func refresh(_ registers: RegisterFile, bank: Int) {
    let low = registers[bank + EngineRegister.Bank.headWriteBack]
    let high = UInt64(registers[bank + EngineRegister.Bank.headWriteBackHigh])
    headWriteBack = low & 1 == 0 ? nil : high << 32 | UInt64(low & ~3)
  }

  /// Forgets all pointers: the mappings have changed.
  mutating func forgetMappings() {
    ring.forgetMapping()
    window = DMAWindow()
  }

  var takesPlain: Bool { allowsPlain && !isDiscarding }

  func context(_ index: Int) -> TransmitContext { index == 0 ? contexts.0 : contexts.1 }

  mutating func setContext(_ context: TransmitContext, _ index: Int) {
    if index == 0 { contexts.0 = context } else { contexts.1 = context }
  }

  /// Marks a descriptor as done where its driver wants to know.
  @inline(__always)
  mutating func complete(_ descriptor: UnsafeMutableRawPointer, _ command: TransmitCommand) {
    if command.has(TransmitCommand.reportStatus) {
      reports = true
      if headWriteBack == nil {
        unsafe ixy_store64(descriptor + 8, command.bits | TransmitCommand.done)
      }
    }
  }

  /// Publishes the head in TDH, and in memory where the driver wants it there.
  ///
  /// - Returns: Whether a descriptor was written back.
  mutating func publish(_ registers: RegisterFile, bank: Int, _ dma: DMATable) -> Bool {
    if ring.head == publishedHead { return false }
    publishedHead = ring.head
    registers[bank + EngineRegister.Bank.head] = UInt32(truncatingIfNeeded: ring.head)
    if !reports { return false }
    reports = false
    if let headWriteBack,
      let place = unsafe dma.pointer(to: headWriteBack, count: 4, forWriting: true),
      UInt(bitPattern: place) % 4 == 0
    {
      unsafe ixy_store32(place, UInt32(truncatingIfNeeded: ring.head))
    }
    return true
  }
}
