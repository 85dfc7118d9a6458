/// The counters of a card (reference, section 8).
///
/// They live in the register file, where their reader clears them; here is what has not been added to them
/// yet. They wrap at 32 bits, those of octets at 36. Lengths count the FCS, which a wire's frames lack.
@safe final class PortStatistics {
  /// The bytes of an Ethernet frame check sequence.
  static let fcs = 4

  /// Frames in one direction, as far as they are not in the registers.
  private struct Pending {
    var broadcast: UInt32 = 0
    var multicast: UInt32 = 0
    var frames: UInt64 = 0
    var octets: UInt64 = 0

    mutating func count(_ start: UInt64) {
      if start & AddressFilter.broadcast == AddressFilter.broadcast {
        broadcast &+= 1
      } else {
        multicast &+= 1
      }
    }
  }

  private let registers: RegisterFile
  private var received = Pending()
  private var sent = Pending()
  /// Frames by their length in units of 64 bytes; those of exactly 64 bytes are in the first place.
  private let receivedSizes = UnsafeMutablePointer<UInt32>.allocate(capacity: sizeCount)
  private let sentSizes = UnsafeMutablePointer<UInt32>.allocate(capacity: sizeCount)
  private static let sizeCount = 512
  /// Frames that did not reach a queue, and their bytes: in TPR and TOR only.
  private var lostFrames: UInt32 = 0
  private var lostOctets: UInt64 = 0
  /// Of these, those that were lost for want of a descriptor or buffer: the card counts them as good.
  private var missedFrames: UInt32 = 0
  /// Bad frames that were stored all the same: received, but not good.
  private var badFrames: UInt32 = 0
  private var badOctets: UInt64 = 0

  init(registers: RegisterFile) {
    self.registers = registers
    unsafe receivedSizes.initialize(repeating: 0, count: Self.sizeCount)
    unsafe sentSizes.initialize(repeating: 0, count: Self.sizeCount)
  }

  deinit {
    unsafe receivedSizes.deallocate()
    unsafe sentSizes.deallocate()
  }

  // MARK: Each frame

  /// A frame of `length` bytes with FCS was stored; its destination begins `start`.
  @inline(__always)
  func countReceived(_ length: Int, start: UInt64) {
    unsafe count(receivedSizes, length)
    if start & 1 != 0 { received.count(start) }
  }

  /// A frame of `length` bytes with FCS was sent; its destination begins `start`.
  @inline(__always)
  func countSent(_ length: Int, start: UInt64) {
    unsafe count(sentSizes, length)
    if start & 1 != 0 { sent.count(start) }
  }

  @inline(__always)
  private func count(_ sizes: UnsafeMutablePointer<UInt32>, _ length: Int) {
    // SAFETY: the index is less than `sizeCount`.
    unsafe sizes[length == 64 ? 0 : length >> 6 & (Self.sizeCount - 1)] &+= 1
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

  /// A frame under 64 bytes was stored as a bad one, as `stored` bytes.
  func countStoredUndersize(_ stored: Int) {
    badFrames &+= 1
    badOctets &+= UInt64(stored)
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
    received.frames += UInt64(frames)
    received.octets += UInt64(octets)
  }

  /// Frames that were sent from a queue since the last poll, and their bytes without FCS.
  func addSent(queue: Int, frames: Int, octets: Int) {
    let counter = Int(registers[EngineRegister.tqsm(queue / 4)] >> (8 * (queue % 4)) & 0xF)
    registers[EngineRegister.qptc(counter)] &+= UInt32(truncatingIfNeeded: frames)
    addPair(EngineRegister.qbtcl(counter), EngineRegister.qbtcl(counter) + 4, UInt64(octets))
    sent.frames += UInt64(frames)
    sent.octets += UInt64(octets)
  }

  /// The set of counters that RQSMR gives a receive queue.
  private func receiveCounter(of queue: Int) -> Int {
    Int(registers[EngineRegister.rqsmr(queue / 4)] >> (8 * (queue % 4)) & 0xF)
  }

  /// Adds everything to the registers, before one of them is read; too much work for every poll.
  func flush() {
    let (came, went) = (received.frames, sent.frames)
    if came != 0 || lostFrames != 0 {
      let good = UInt32(truncatingIfNeeded: came) &- badFrames
      registers[EngineRegister.gprc] &+= good &+ missedFrames
      registers[EngineRegister.tpr] &+= UInt32(truncatingIfNeeded: came) &+ lostFrames
      // DATASHEET-UNSEEN: as drivers correct them, GORC has no FCS where it is stripped; TOR has it.
      addPair(EngineRegister.gorcl, EngineRegister.gorcl + 4, received.octets &- badOctets)
      let strips = registers.has(EngineBit.stripCRC, at: EngineRegister.hlreg0)
      let fcs = strips ? came &* UInt64(Self.fcs) : 0
      addPair(
        EngineRegister.torl, EngineRegister.torl + 4, received.octets + fcs + lostOctets)
      (missedFrames, lostFrames, lostOctets, badFrames, badOctets) = (0, 0, 0, 0, 0)
      unsafe flush(
        received, receivedSizes, EngineRegister.prc64, EngineRegister.mprc, EngineRegister.bprc)
      received = Pending()
    }
    if went != 0 {
      registers[EngineRegister.gptc] &+= UInt32(truncatingIfNeeded: went)
      registers[EngineRegister.tpt] &+= UInt32(truncatingIfNeeded: went)
      let octets = sent.octets + went &* UInt64(Self.fcs)
      addPair(EngineRegister.gotcl, EngineRegister.gotcl + 4, octets)
      unsafe flush(sent, sentSizes, EngineRegister.ptc64, EngineRegister.mptc, EngineRegister.bptc)
      sent = Pending()
    }
  }

  private func flush(
    _ pending: Pending, _ sizes: UnsafeMutablePointer<UInt32>, _ firstSize: Int,
    _ multicast: Int, _ broadcast: Int
  ) {
    // 64, 65 to 127, 128 to 255, 256 to 511, 512 to 1023, and longer.
    for (place, units) in [0..<1, 1..<2, 2..<4, 4..<8, 8..<16, 16..<Self.sizeCount].enumerated() {
      for unit in units where unsafe sizes[unit] != 0 {
        unsafe registers[firstSize + 4 * place] &+= sizes[unit]
        unsafe sizes[unit] = 0
      }
    }
    registers[multicast] &+= pending.multicast
    registers[broadcast] &+= pending.broadcast
  }

  private func addPair(_ low: Int, _ high: Int, _ octets: UInt64) {
    let sum = (UInt64(registers[high] & 0xF) << 32 | UInt64(registers[low])) &+ octets
    registers[low] = UInt32(truncatingIfNeeded: sum)
    registers[high] = UInt32(truncatingIfNeeded: sum >> 32) & 0xF
  }
}
