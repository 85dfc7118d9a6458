/// Registers of the 82574, in bytes from the start of BAR 0.
///
/// Facts are those on which DPDK's driver relies and which QEMU's device shows; DATASHEET-UNSEEN: no section
/// is cited.
enum E1000eRegister {
  /// Device Control.
  static let ctrl = Register<Control>(at: 0x00000)
  /// Device Status.
  static let status = Register<Status>(at: 0x00008)
  /// EEPROM Control: AUTO_RD in bit 9.
  static let eecd = Register<UInt32>(at: 0x00010)
  /// Extended Device Control.
  static let ctrlExt = Register<ExtendedControl>(at: 0x00018)
  /// MDI Control: the way to the PHY's own registers.
  static let mdic = Register<ManagementData>(at: 0x00020)
  /// Extended Configuration Control: MDIO Software Ownership in bit 5.
  static let extcnfCtrl = Register<UInt32>(at: 0x00F00)
  /// 3GIO Control, and its second word.
  static let gcr = Register<UInt32>(at: 0x05B00)
  /// 3GIO Control 2.
  static let gcr2 = Register<UInt32>(at: 0x05B64)

  /// Interrupt Cause Read; a 1 that is written takes a cause back, reading without MSI-X takes all.
  static let icr = Register<Causes>(at: 0x000C0)
  /// Interrupt Throttle, without MSI-X.
  static let itr = Register<Throttle>(at: 0x000C4)
  /// Interrupt Mask Set: 1 enables a cause.
  static let ims = Register<Causes>(at: 0x000D0)
  /// Interrupt Mask Clear: 1 disables a cause.
  static let imc = Register<UInt32>(at: 0x000D8)
  /// Extended Interrupt Auto Clear: causes that their own message takes back.
  static let eiac = Register<Causes>(at: 0x000DC)
  /// Interrupt Acknowledge Auto Mask: causes that their own message masks.
  static let iam = Register<Causes>(at: 0x000E0)
  /// Interrupt Vector Allocation: fields of a 3-bit vector and a valid bit.
  static let ivar = Register<VectorAllocation>(at: 0x000E4)
  /// Extended Interrupt Throttle of vector `n`, 0 to 4.
  static func eitr(_ n: Int) -> Register<Throttle> { Register(at: 0x000E8 + 4 * n) }

  /// Receive Control.
  static let rctl = Register<ReceiveControl>(at: 0x00100)
  /// Transmit Control.
  static let tctl = Register<TransmitControl>(at: 0x00400)
  /// Receive Checksum Control: PCSD in bit 13 puts the RSS hash where a checksum would be.
  static let rxcsum = Register<UInt32>(at: 0x05000)
  /// Receive Filter Control: EXTEN in bit 15 (extended descriptors), ACK_DIS in bit 12.
  static let rfctl = Register<UInt32>(at: 0x05008)
  /// Multiple Receive Queues Command.
  static let mrqc = Register<MultipleQueues>(at: 0x05818)
  /// Redirection Table, word `n` of 32: four entries of a byte each, whose bit 7 is the queue.
  static func reta(_ n: Int) -> Register<UInt32> { Register(at: 0x05C00 + 4 * n) }
  /// RSS Random Key, word `n` of 10.
  static func rssrk(_ n: Int) -> Register<UInt32> { Register(at: 0x05C80 + 4 * n) }

  /// Multicast Table Array, word `n` of 128: one bit for each 12-bit hash.
  static func mta(_ n: Int) -> Register<UInt32> { Register(at: 0x05200 + 4 * n) }
  /// Receive Address `n` of 16, low: the first four bytes of the MAC address, the first lowest.
  static func ral(_ n: Int) -> Register<UInt32> { Register(at: 0x05400 + 8 * n) }
  /// Receive Address `n`, high: the last two bytes, and AV (address valid) in bit 31.
  static func rah(_ n: Int) -> Register<UInt32> { Register(at: 0x05404 + 8 * n) }
  /// VLAN Ether Type: which frames are tagged.
  static let vet = Register<UInt32>(at: 0x00038)
  /// VLAN Filter Table Array, word `n` of 128: one bit for each VLAN.
  static func vfta(_ n: Int) -> Register<UInt32> { Register(at: 0x05600 + 4 * n) }

  /// Frames that were damaged, too short or too long: CRCERRS, ALGNERRC, RXERRC, RLEC, RUC, RFC, ROC and
  /// RJC.
  static let receiveErrors = [
    0x04000, 0x04004, 0x0400C, 0x04040, 0x040A4, 0x040A8, 0x040AC, 0x040B0,
  ]
  /// MPC: frames that were whole and found no room on the card.
  static let missedPackets = 0x04010
}

/// The registers of one ring: receive and transmit rings have the same layout.
struct E1000eRingRegisters {
  private let block: Int
  /// The ring among all of the card, receive rings first.
  let index: Int
  static let count = 4

  /// Receive ring `n`, 0 or 1.
  static func receive(_ n: Int) -> Self { Self(block: 0x02800 + 0x100 * n, index: n) }
  /// Transmit ring `n`, 0 or 1.
  static func transmit(_ n: Int) -> Self { Self(block: 0x03800 + 0x100 * n, index: 2 + n) }

  /// RDBAL and TDBAL, Descriptor Base Address Low: 128-byte aligned.
  var baseLow: Register<UInt32> { Register(at: block) }
  /// RDBAH and TDBAH, Descriptor Base Address High.
  var baseHigh: Register<UInt32> { Register(at: block + 0x04) }
  /// RDLEN and TDLEN, Descriptor Length, in bytes; 0 while there is no ring.
  var length: Register<UInt32> { Register(at: block + 0x08) }
  /// RDH and TDH, Descriptor Head.
  var head: Register<UInt32> { Register(at: block + 0x10) }
  /// RDT and TDT, Descriptor Tail.
  var tail: Register<UInt32> { Register(at: block + 0x18) }
  /// RXDCTL and TXDCTL, Descriptor Control.
  var control: Register<E1000eRegister.Queue> { Register(at: block + 0x28) }
  /// TARC, Transmit Arbitration Count; transmit rings only.
  var tarc: Register<E1000eRegister.Arbitration> { Register(at: block + 0x40) }
}

extension E1000eRegister {
  /// Device Control.
  struct Control: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// GIO Master Disable: no new requests on the bus.
    static let masterDisable = Self(rawValue: 1 << 2)
    /// SLU: set link up.
    static let linkUp = Self(rawValue: 1 << 6)
    /// FRCSPD, FRCDPX: speed and duplex are forced, and not the PHY's.
    static let forced = Self(rawValue: 1 << 11 | 1 << 12)
    /// RST: resets the device; reads as 0 once the reset is over.
    static let deviceReset = Self(rawValue: 1 << 26)
    /// A bit that known drivers clear.
    static let reserved = Self(rawValue: 1 << 29)
  }

  /// Device Status.
  struct Status: RegisterValue {
    var bits: UInt32
    /// LU: there is a link.
    var isLinkUp: Bool { bits[1...1] == 1 }
    /// SPEED, in Mbit/s.
    var megabitsPerSecond: Int { [10, 100, 1_000, 1_000][Int(bits[6...7])] }
    /// GIO Master Enable Status: requests may still be on their way.
    var isMasterEnabled: Bool { bits[19...19] == 1 }
  }

  /// Extended Device Control.
  struct ExtendedControl: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// A bit that known drivers set, and one that they clear.
    static let setAlways = Self(rawValue: 1 << 22)
    static let clearAlways = Self(rawValue: 1 << 23)
    /// EIAME: a message masks its causes as IAM says.
    static let autoMask = Self(rawValue: 1 << 24)
    /// DRV_LOAD: tells firmware that a driver has the card.
    static let driverLoaded = Self(rawValue: 1 << 28)
    /// PBA_CLR: the pending bits of MSI-X are the device's own.
    static let pendingBits = Self(rawValue: 1 << 31)
  }

  /// MDI Control.
  struct ManagementData: RegisterValue {
    var bits: UInt32
    /// What was read, or shall be written.
    var data: UInt16 { UInt16(truncatingIfNeeded: bits) }
    /// R: the transfer is over.
    var isReady: Bool { bits[28...28] == 1 }
    /// E: no PHY answered.
    var isError: Bool { bits[30...30] == 1 }

    /// A transfer from or to register `register` of PHY 1.
    static func transfer(_ register: Int, writing data: UInt16?) -> Self {
      let operation: UInt32 = data == nil ? 0b10 : 0b01
      return Self(bits: operation << 26 | 1 << 21 | UInt32(register) << 16 | UInt32(data ?? 0))
    }
  }

  /// Receive Control.
  struct ReceiveControl: RegisterValue {
    var bits: UInt32
    /// EN: the receiver is on.
    var isEnabled: Bool {
      get { bits[1...1] == 1 }
      set { bits[1...1] = newValue ? 1 : 0 }
    }
    /// UPE and MPE: all unicast, all multicast frames.
    var isPromiscuous: Bool {
      get { bits[3...4] == 0b11 }
      set { bits[3...4] = newValue ? 0b11 : 0 }
    }
    /// LPE: frames of up to 16 KiB, and not up to 1,522 bytes.
    static let longPackets: UInt32 = 1 << 5
    /// BAM: broadcast frames.
    static let broadcast: UInt32 = 1 << 15
    /// VFE: only VLANs in the filter table.
    var filtersVLANs: Bool {
      get { bits[18...18] == 1 }
      set { bits[18...18] = newValue ? 1 : 0 }
    }
    /// SECRC: strips the FCS.
    static let stripCRC: UInt32 = 1 << 26
    /// FLXBUF: the size of one receive buffer in bytes, up to 15 KiB; the device counts in KiB.
    var bufferSize: Int {
      get { Int(bits[27...30]) * 1024 }
      set { bits[27...30] = UInt32(newValue / 1024) }
    }
  }

  /// Transmit Control.
  struct TransmitControl: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// EN: the transmitter is on.
    static let enabled = Self(rawValue: 1 << 1)
    /// PSP: pads short frames to 64 bytes.
    static let padShortPackets = Self(rawValue: 1 << 3)
    /// CT: gives up after 15 collisions.
    static let collisionThreshold = Self(rawValue: 15 << 4)
    /// RTLC: sends again after a late collision.
    static let retransmitLate = Self(rawValue: 1 << 24)
  }

  /// Receive or Transmit Descriptor Control of one ring.
  struct Queue: RegisterValue {
    var bits: UInt32
    /// WTHRESH = 1, in descriptors (GRAN): each is written back at once.
    static let writeBackAtOnce = Self(bits: 1 << 24 | 1 << 16)
    /// COUNT_DESC: transmit rings want it set.
    static let countDescriptors: UInt32 = 1 << 22
  }

  /// Transmit Arbitration Count of one ring.
  struct Arbitration: RegisterValue {
    var bits: UInt32
    /// ENABLE: the ring takes part in transmission.
    var isEnabled: Bool {
      get { bits[10...10] == 1 }
      set { bits[10...10] = newValue ? 1 : 0 }
    }
    /// Bits 30:26 of ring 0, which known drivers set to 1.
    mutating func setRequired() { bits[26...30] = 1 }
  }

  /// Causes of interrupts.
  struct Causes: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// LSC: the link went up or down.
    static let linkChange = Self(rawValue: 1 << 2)
    /// RXT0: a frame was received; without MSI-X.
    static let received = Self(rawValue: 1 << 7)
    /// OTHER: a cause that is no queue's; with MSI-X.
    static let other = Self(rawValue: 1 << 24)
    /// RXQ0 and RXQ1: a frame was received on this queue; with MSI-X.
    static func receive(_ queue: Int) -> Self { Self(rawValue: 1 << UInt32(20 + queue)) }
  }

  /// Interrupt Vector Allocation.
  struct VectorAllocation: RegisterValue {
    var bits: UInt32
    /// Gives a receive queue's interrupt to a vector; bit 3 of the field makes it valid.
    mutating func route(receive queue: Int, to vector: Int) {
      bits[4 * queue...4 * queue + 3] = UInt32(vector) | 8
    }
    /// Gives all other causes to a vector.
    mutating func route(otherTo vector: Int) { bits[16...19] = UInt32(vector) | 8 }
  }

  /// Interrupt Throttle.
  struct Throttle: RegisterValue {
    var bits: UInt32
    /// The least time between two messages in microseconds, up to 16,777; the device counts in 256 ns.
    var microseconds: Int {
      get { Int(bits[0...15]) * 256 / 1000 }
      set { bits[0...15] = UInt32(max(0, min(newValue, 16_776)) * 1000 / 256) }
    }
  }

  /// Multiple Receive Queues Command.
  struct MultipleQueues: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// RSS over two queues.
    ///
    /// What is hashed is in the bits of `ReceiveSideScaling.Fields`; the card knows no UDP.
    static let rss = Self(rawValue: 0b01)
  }
}
