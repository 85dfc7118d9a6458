private typealias Reg = IxgbeRegister

/// Registers of the interrupt block.
///
/// DATASHEET-UNSEEN: their sections; offsets and meanings are those that known drivers agree on.
extension IxgbeRegister {
  /// Extended Interrupt Cause: a 1 that is written takes a cause back.
  static let eicr = Register<InterruptCauses>(at: 0x00800)
  /// Extended Interrupt Auto Clear, for causes 15:0: gone when their message is sent.
  static let eiac = Register<InterruptCauses>(at: 0x00810)
  /// Extended Interrupt Mask Set: a 1 that is written lets a cause signal.
  static let eims = Register<InterruptCauses>(at: 0x00880)
  /// General Purpose Interrupt Enable.
  static let gpie = Register<GeneralInterruptEnable>(at: 0x00898)
  /// Extended Interrupt Throttle of vector `n`; from 24 on they are in a second block.
  static func eitr(_ n: Int) -> Register<InterruptThrottle> {
    Register(at: n < 24 ? 0x00820 + 4 * n : 0x12300 + 4 * (n - 24))
  }
  /// Interrupt Vector Allocation of queues 2`k` and 2`k` + 1.
  static func ivar(_ k: Int) -> Register<UInt32> { Register(at: 0x00900 + 4 * k) }
  /// Interrupt Vector Allocation of everything that is no queue.
  static let ivarMisc = Register<UInt32>(at: 0x00A00)
  /// Extended Interrupt Mask Set of vectors 32`w` to 32`w` + 31: a 1 that is written enables one.
  static func eimsEx(_ w: Int) -> Register<UInt32> { Register(at: 0x00AA0 + 4 * w) }
  /// Extended Interrupt Auto Mask of these vectors: masked when their message is sent.
  static func eiamEx(_ w: Int) -> Register<UInt32> { Register(at: 0x00AD0 + 4 * w) }
}

/// What an interrupt can be for.
struct InterruptCauses: OptionSet, RegisterValue {
  let rawValue: UInt32
  /// RTxQ: the queues, as IVAR spreads them over these bits.
  static let queues = Self(rawValue: 0xFFFF)
  /// The one that IVAR gives to queue 0, where there is one interrupt for all.
  static let firstQueue = Self(rawValue: 1 << 0)
  /// LSC: the link's state changed.
  static let linkChange = Self(rawValue: 1 << 20)
}

/// General Purpose Interrupt Enable.
struct GeneralInterruptEnable: OptionSet, RegisterValue {
  let rawValue: UInt32
  /// Several vectors.
  static let msix = Self(rawValue: 1 << 4)
  /// OCD: reading EICR leaves the queues' causes alone.
  static let keepsQueueCauses = Self(rawValue: 1 << 5)
  /// EIAME: EIAM masks when a message is sent.
  static let autoMask = Self(rawValue: 1 << 30)
  /// PBA_SUPPORT: a pending bit for each vector.
  static let pendingBits = Self(rawValue: 1 << 31)
}

/// Extended Interrupt Throttle.
struct InterruptThrottle: RegisterValue {
  var bits: UInt32
  /// The shortest time between two interrupts, at most 1,022; the device counts in 2 microseconds.
  var microseconds: Int {
    get { 2 * Int(bits[3...11]) }
    set { bits[3...11] = UInt32(min(max(0, newValue), 1022) / 2) }
  }
}

extension IxgbeDevice {
  /// Sets up an interrupt for each receive queue and one for the link.
  public func enableInterrupts(throttle: Duration) throws(DeviceError) -> DeviceInterrupts {
    let queues = configuration.receiveQueues
    let interrupts = try DeviceInterrupts(of: pci, queues: queues)
    let bar = bar
    if interrupts.isShared {
      route(queue: 0, to: 0)
      bar[Reg.eitr(0)].microseconds = throttle.microseconds
      // Which cause it was, nobody asks: they are taken back before both are looked at.
      interrupts.onEnable(of: pci) { _ in
        bar[Reg.eicr] = .firstQueue
        bar[Reg.eims] = .firstQueue
      } link: {
        bar[Reg.eicr] = .linkChange
        bar[Reg.eims] = .linkChange
      }
      return interrupts
    }
    bar[Reg.gpie].formUnion([.msix, .keepsQueueCauses, .autoMask, .pendingBits])
    bar[Reg.eiac] = .queues
    for word in 0..<2 { bar[Reg.eiamEx(word)] = .max }
    for id in 0..<queues {
      route(queue: id, to: id)
      bar[Reg.eitr(id)].microseconds = throttle.microseconds
    }
    // Byte 1 is for all causes that have no queue: the vector, and bit 7 makes it valid.
    bar[Reg.ivarMisc][8...15] = UInt32(queues) | 0x80
    interrupts.onEnable(of: pci) { id in
      bar[Reg.eimsEx(id / 32)] = 1 << UInt32(id % 32)
    } link: {
      // Masked by its cause alone, not by its vector, and not taken back by itself.
      bar[Reg.eicr] = .linkChange
      bar[Reg.eims] = .linkChange
    }
    return interrupts
  }

  /// Gives a receive queue's interrupt to a vector: byte 0 or 2 of its IVAR, where bit 7 makes it valid.
  private func route(queue: Int, to vector: Int) {
    let field = queue % 2 == 0 ? 0...7 : 16...23
    bar[Reg.ivar(queue / 2)][field] = UInt32(vector) | 0x80
  }
}

extension Duration {
  /// Whole microseconds.
  var microseconds: Int {
    Int(clamping: components.seconds &* 1_000_000 &+ components.attoseconds / 1_000_000_000_000)
  }
}
