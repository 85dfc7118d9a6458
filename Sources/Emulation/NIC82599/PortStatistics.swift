/// The counters of a card (reference, section 8).
///
/// They live in the register file, where their reader clears them; here is what has not been added to them
/// yet. They wrap at 32 bits, those of octets at 36. Lengths count the FCS, which a wire's frames lack.
@safe final class PortStatistics {
  /// The bytes of an Ethernet frame check sequence.
  static let fcs = 4

  /// Frames in one direction, as far as they are not in the registers.
  @safe private struct Pending {
    /// By the number of leading zero bits of their length in 32 bits.
    let sizes = UnsafeMutablePointer<UInt32>.allocate(capacity: 33)
    /// Those of exactly 64 bytes, which is a class of its own.
    var shortest: UInt32 = 0
    var broadcast: UInt32 = 0
    var multicast: UInt32 = 0
    var frames: UInt64 = 0
    var octets: UInt64 = 0

    init() { unsafe sizes.initialize(repeating: 0, count: 33) }
  }

  private let registers: RegisterFile
  private let received = UnsafeMutablePointer<Pending>.allocate(capacity: 1)
  private let sent = UnsafeMutablePointer<Pending>.allocate(capacity: 1)
  /// Frames that did not reach a queue, and their bytes: in TPR and TOR only.
  private var lostFrames: UInt32 = 0
  private var lostOctets: UInt64 = 0
  /// Of these, those that were lost for want of a descriptor or buffer: the card counts them as good.
  private var missedFrames: UInt32 = 0

  init(registers: RegisterFile) {
    self.registers = registers
    unsafe received.initialize(to: Pending())
    unsafe sent.initialize(to: Pending())
  }

  deinit {
    unsafe received.pointee.sizes.deallocate()
    unsafe received.deallocate()
    unsafe sent.pointee.sizes.deallocate()
    unsafe sent.deallocate()
  }

  // MARK: Each frame

  /// A frame of `length` bytes with FCS was stored.
  @inline(__always)
  func countReceived(_ length: Int, to destination: UInt64) {
    unsafe Self.count(received, length, destination)
  }

  /// A frame of `length` bytes with FCS was sent.
  @inline(__always)
  func countSent(_ length: Int, to destination: UInt64) {
    unsafe Self.count(sent, length, destination)
  }

  @inline(__always)
  private static func count(
    _ pending: UnsafeMutablePointer<Pending>, _ length: Int, _ destination: UInt64
  ) {
    let length = UInt32(truncatingIfNeeded: length)
    unsafe pending.pointee.sizes[length.leadingZeroBitCount] &+= 1
    if length == 64 { unsafe pending.pointee.shortest &+= 1 }
    if destination & 1 != 0 { unsafe countGroup(pending, destination) }
  }

  @inline(never)
  private static func countGroup(_ pending: UnsafeMutablePointer<Pending>, _ destination: UInt64) {
    if destination == AddressFilter.broadcast {
      unsafe pending.pointee.broadcast &+= 1
    } else {
      unsafe pending.pointee.multicast &+= 1
    }
  }

  // MARK: What did not reach a queue

  /// A frame of `length` bytes with FCS came, and was not for this card.
  func countFiltered(_ length: Int) {
    lostFrames &+= 1
    lostOctets &+= UInt64(length)
  }

  /// A frame under 64 bytes came.
  func countUndersize(_ length: Int) {
    countFiltered(length)
    registers[EngineRegister.ruc] &+= 1
  }

  /// A frame longer than allowed came.
  func countOversize(_ length: Int) {
    countFiltered(length)
    registers[EngineRegister.roc] &+= 1
  }

  /// A good frame found no descriptor, or no buffer that the card may write.
  ///
  /// DATASHEET-UNSEEN: drivers take the drops of queues with DROP_EN from QPRDC and all others from MPC, and know
  /// that GPRC counts the latter as good. RNBC counts both.
  func countMissed(_ length: Int, queue: Int, dropsEarly: Bool) {
    countFiltered(length)
    registers[EngineRegister.rnbc(0)] &+= 1
    if dropsEarly {
      registers[EngineRegister.qprdc(receiveCounter(of: queue))] &+= 1
    } else {
      registers[EngineRegister.mpc(0)] &+= 1
      missedFrames &+= 1
    }
  }

  // MARK: Each poll

  /// Frames that were stored in a queue since the last poll, and their bytes.
  func addReceived(queue: Int, frames: Int, octets: Int) {
    let counter = receiveCounter(of: queue)
    registers[EngineRegister.qprc(counter)] &+= UInt32(truncatingIfNeeded: frames)
    addPair(EngineRegister.qbrcl(counter), EngineRegister.qbrcl(counter) + 4, UInt64(octets))
    unsafe received.pointee.frames += UInt64(frames)
    unsafe received.pointee.octets += UInt64(octets)
  }

  /// Frames that were sent from a queue since the last poll, and their bytes without FCS.
  func addSent(queue: Int, frames: Int, octets: Int) {
    let counter = Int(registers[EngineRegister.tqsm(queue / 4)] >> (8 * (queue % 4)) & 0xF)
    registers[EngineRegister.qptc(counter)] &+= UInt32(truncatingIfNeeded: frames)
    addPair(EngineRegister.qbtcl(counter), EngineRegister.qbtcl(counter) + 4, UInt64(octets))
    unsafe sent.pointee.frames += UInt64(frames)
    unsafe sent.pointee.octets += UInt64(octets)
  }

  /// The set of counters that RQSMR gives a receive queue.
  private func receiveCounter(of queue: Int) -> Int {
    Int(registers[EngineRegister.rqsmr(queue / 4)] >> (8 * (queue % 4)) & 0xF)
  }

  /// Adds everything to the registers.
  func flush() {
    let (came, went) = unsafe (received.pointee.frames, sent.pointee.frames)
    if came != 0 || lostFrames != 0 {
      registers[EngineRegister.gprc] &+= UInt32(truncatingIfNeeded: came) &+ missedFrames
      registers[EngineRegister.tpr] &+= UInt32(truncatingIfNeeded: came) &+ lostFrames
      // DATASHEET-UNSEEN: as drivers correct them, GORC has no FCS where it is stripped; TOR has it.
      unsafe addPair(EngineRegister.gorcl, EngineRegister.gorcl + 4, received.pointee.octets)
      let strips = registers.has(EngineBit.stripCRC, at: EngineRegister.hlreg0)
      let fcs = strips ? came &* UInt64(Self.fcs) : 0
      unsafe addPair(
        EngineRegister.torl, EngineRegister.torl + 4, received.pointee.octets + fcs + lostOctets)
      (missedFrames, lostFrames, lostOctets) = (0, 0, 0)
      unsafe flush(received, EngineRegister.prc64, EngineRegister.mprc, EngineRegister.bprc)
    }
    if went != 0 {
      registers[EngineRegister.gptc] &+= UInt32(truncatingIfNeeded: went)
      registers[EngineRegister.tpt] &+= UInt32(truncatingIfNeeded: went)
      let octets = unsafe sent.pointee.octets + went &* UInt64(Self.fcs)
      addPair(EngineRegister.gotcl, EngineRegister.gotcl + 4, octets)
      unsafe flush(sent, EngineRegister.ptc64, EngineRegister.mptc, EngineRegister.bptc)
    }
  }

  private func flush(
    _ pending: UnsafeMutablePointer<Pending>, _ firstSize: Int, _ multicast: Int, _ broadcast: Int
  ) {
    let sizes = unsafe pending.pointee.sizes
    // 64 to 127 bytes have 25 leading zeros; the last class begins at 1024, with 21.
    for (place, zeros) in [25, 24, 23, 22].enumerated() where unsafe sizes[zeros] != 0 {
      unsafe registers[firstSize + 4 + 4 * place] &+= sizes[zeros]
      unsafe sizes[zeros] = 0
    }
    for zeros in 0...21 where unsafe sizes[zeros] != 0 {
      unsafe registers[firstSize + 20] &+= sizes[zeros]
      unsafe sizes[zeros] = 0
    }
    let shortest = unsafe pending.pointee.shortest
    if shortest != 0 {
      registers[firstSize] &+= shortest
      registers[firstSize + 4] &-= shortest
    }
    unsafe registers[multicast] &+= pending.pointee.multicast
    unsafe registers[broadcast] &+= pending.pointee.broadcast
    unsafe pending.pointee.multicast = 0
    unsafe pending.pointee.broadcast = 0
    unsafe pending.pointee.shortest = 0
    unsafe pending.pointee.frames = 0
    unsafe pending.pointee.octets = 0
  }

  private func addPair(_ low: Int, _ high: Int, _ octets: UInt64) {
    let sum = (UInt64(registers[high] & 0xF) << 32 | UInt64(registers[low])) &+ octets
    registers[low] = UInt32(truncatingIfNeeded: sum)
    registers[high] = UInt32(truncatingIfNeeded: sum >> 32) & 0xF
  }
}
