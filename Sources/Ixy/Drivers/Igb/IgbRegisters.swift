/// Registers of the 82576, in bytes from the start of BAR 0.
///
/// The I350, I210 and I211 have them at the same offsets. Facts are those on which DPDK's driver relies and
/// which QEMU's device shows; DATASHEET-UNSEEN: no section is cited.
enum IgbRegister {
  /// Device Control.
  static let ctrl = Register<Control>(at: 0x00000)
  /// Device Status.
  static let status = Register<Status>(at: 0x00008)
  /// EEPROM/Flash Control: AUTO_RD in bit 9.
  static let eecd = Register<UInt32>(at: 0x00010)
  /// Extended Device Control.
  static let ctrlExt = Register<ExtendedControl>(at: 0x00018)
  /// MDI Control: the way to the PHY's own registers.
  static let mdic = Register<ManagementData>(at: 0x00020)
  /// VLAN Ether Type.
  static let vet = Register<UInt32>(at: 0x00038)
  /// Receive Control.
  static let rctl = Register<ReceiveControl>(at: 0x00100)
  /// Transmit Control.
  static let tctl = Register<TransmitControl>(at: 0x00400)

  /// Interrupt Cause Read; reading clears it.
  static let icr = Register<Causes>(at: 0x000C0)
  /// Interrupt Mask Set: 1 enables a cause.
  static let ims = Register<Causes>(at: 0x000D0)
  /// Interrupt Mask Clear: 1 disables a cause.
  static let imc = Register<UInt32>(at: 0x000D8)
  /// General Purpose Interrupt Enable.
  static let gpie = Register<InterruptMode>(at: 0x01514)
  /// Extended Interrupt Mask Set: 1 enables a vector.
  static let eims = Register<UInt32>(at: 0x01524)
  /// Extended Interrupt Mask Clear: 1 disables a vector.
  static let eimc = Register<UInt32>(at: 0x01528)
  /// Extended Interrupt Auto Clear: vectors whose cause the message itself clears.
  static let eiac = Register<UInt32>(at: 0x0152C)
  /// Extended Interrupt Auto Mask: vectors that their own message masks.
  static let eiam = Register<UInt32>(at: 0x01530)
  /// Extended Interrupt Cause: a 1 that is written takes a vector's cause back.
  static let eicr = Register<UInt32>(at: 0x01580)
  /// Extended Interrupt Throttle of vector `n`.
  static func eitr(_ n: Int) -> Register<Throttle> { Register(at: 0x01680 + 4 * n) }
  /// Interrupt Vector Allocation, word `n`: four bytes, each a vector and a valid bit.
  static func ivar(_ n: Int) -> Register<UInt32> { Register(at: 0x01700 + 4 * n) }
  /// Interrupt Vector Allocation for other causes, in byte 1.
  static let ivarMisc = Register<UInt32>(at: 0x01740)

  /// PCS Configuration 0: PCS_EN in bit 3.
  static let pcsCfg = Register<UInt32>(at: 0x04200)
  /// PCS Link Control: the link of cards without a copper PHY.
  static let pcsLctl = Register<PCSLinkControl>(at: 0x04208)

  /// Receive Checksum Control: PCSD in bit 13 puts the RSS hash where a checksum would be.
  static let rxcsum = Register<UInt32>(at: 0x05000)
  /// Receive Long Packet Maximum Length, in bytes with FCS.
  static let rlpml = Register<UInt32>(at: 0x05004)
  /// Multiple Receive Queues Command.
  static let mrqc = Register<MultipleQueues>(at: 0x05818)
  /// Redirection Table, word `n` of 32: four entries of a byte each.
  static func reta(_ n: Int) -> Register<UInt32> { Register(at: 0x05C00 + 4 * n) }
  /// RSS Random Key, word `n` of 10.
  static func rssrk(_ n: Int) -> Register<UInt32> { Register(at: 0x05C80 + 4 * n) }

  /// Multicast Table Array, word `n` of 128: one bit for each 12-bit hash.
  static func mta(_ n: Int) -> Register<UInt32> { Register(at: 0x05200 + 4 * n) }
  /// Receive Address `n` of 16, low: the first four bytes of the MAC address, the first lowest.
  static func ral(_ n: Int) -> Register<UInt32> { Register(at: 0x05400 + 8 * n) }
  /// Receive Address `n`, high: the last two bytes, and AV (address valid) in bit 31.
  static func rah(_ n: Int) -> Register<UInt32> { Register(at: 0x05404 + 8 * n) }
  /// VLAN Filter Table Array, word `n` of 128: one bit for each VLAN.
  static func vfta(_ n: Int) -> Register<UInt32> { Register(at: 0x05600 + 4 * n) }
  /// Unicast Table Array, word `n` of 128; not used.
  static func uta(_ n: Int) -> Register<UInt32> { Register(at: 0x0A000 + 4 * n) }

  /// Software Semaphore: SMBI in bit 0 is ours when it reads as 0, SWESMBI in bit 1 when it stays 1.
  static let swsm = Register<UInt32>(at: 0x05B50)
  /// Software-Firmware Synchronization: software's marks in the lower half, firmware's in the upper.
  static let swFwSync = Register<UInt32>(at: 0x05B5C)

  /// Frames that were damaged, too short or too long: CRCERRS, ALGNERRC, RXERRC, RLEC, RUC, RFC, ROC and
  /// RJC.
  static let receiveErrors = [
    0x04000, 0x04004, 0x0400C, 0x04040, 0x040A4, 0x040A8, 0x040AC, 0x040B0,
  ]
  /// MPC: frames that were whole and found no room on the card.
  static let missedPackets = 0x04010
}

/// The registers of one ring: receive and transmit rings have the same layout.
struct IgbRingRegisters {
  private let block: Int
  /// The ring among all of the card, receive rings first.
  let index: Int
  static let count = 32

  /// Receive ring `n`, 0 to 15.
  static func receive(_ n: Int) -> Self { Self(block: 0x0C000 + 0x40 * n, index: n) }
  /// Transmit ring `n`, 0 to 15.
  static func transmit(_ n: Int) -> Self { Self(block: 0x0E000 + 0x40 * n, index: 16 + n) }

  /// RDBAL and TDBAL, Descriptor Base Address Low: 128-byte aligned.
  var baseLow: Register<UInt32> { Register(at: block) }
  /// RDBAH and TDBAH, Descriptor Base Address High.
  var baseHigh: Register<UInt32> { Register(at: block + 0x04) }
  /// RDLEN and TDLEN, Descriptor Length, in bytes.
  var length: Register<UInt32> { Register(at: block + 0x08) }
  /// SRRCTL, Split and Replication Receive Control; receive rings only.
  var srrctl: Register<IgbRegister.SplitReceive> { Register(at: block + 0x0C) }
  /// RDH and TDH, Descriptor Head.
  var head: Register<UInt32> { Register(at: block + 0x10) }
  /// RDT and TDT, Descriptor Tail.
  var tail: Register<UInt32> { Register(at: block + 0x18) }
  /// RXDCTL and TXDCTL, Descriptor Control.
  var control: Register<IgbRegister.Queue> { Register(at: block + 0x28) }
  /// RQDPC, frames that this ring had no descriptor for, in bits 11:0; receive rings only.
  var dropCount: Int { block + 0x30 }
  /// DVMOLR: STRCRC in bit 31 strips the FCS on the I350, I210 and I211; receive rings only.
  var dvmolr: Register<UInt32> { Register(at: block + 0x38) }
}

extension IgbRegister {
  /// Device Control.
  struct Control: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// GIO Master Disable: no new requests on the bus.
    static let masterDisable = Self(rawValue: 1 << 2)
    /// SLU: set link up.
    static let linkUp = Self(rawValue: 1 << 6)
    /// SPEED, FRCSPD, FRCDPX: speed and duplex are forced, and not the PHY's.
    static let forced = Self(rawValue: 1 << 11 | 1 << 12)
    /// FD and SPEED = 1,000 Mbit/s.
    static let gigabitFullDuplex = Self(rawValue: 1 | 0b10 << 8)
    /// SWDPIN0 and SWDPIN1: pins that switch a SerDes module on.
    static let softwarePins = Self(rawValue: 0b11 << 18)
    /// RST: resets the device; reads as 0 once the reset is over.
    static let deviceReset = Self(rawValue: 1 << 26)
  }

  /// Device Status.
  struct Status: RegisterValue {
    var bits: UInt32
    /// LU: there is a link.
    var isLinkUp: Bool { bits[1...1] == 1 }
    /// LAN ID: which port of its card this is.
    var port: Int { Int(bits[2...3]) }
    /// SPEED, in Mbit/s.
    var megabitsPerSecond: Int { [10, 100, 1_000, 1_000][Int(bits[6...7])] }
    /// GIO Master Enable Status: requests may still be on their way.
    var isMasterEnabled: Bool { bits[19...19] == 1 }
  }

  /// Extended Device Control.
  struct ExtendedControl: RegisterValue {
    var bits: UInt32
    /// SDP3_DATA: a pin that switches an SFP cage off.
    static let cagePowerOff: UInt32 = 1 << 7
    /// PFRSTD: the reset of the physical function is done, virtual ones may go on.
    static let resetDone: UInt32 = 1 << 14
    /// DRV_LOAD: tells firmware that a driver has the card.
    static let driverLoaded: UInt32 = 1 << 28
    /// LINK_MODE: 0 is the copper PHY, 1 KX, 2 SGMII, 3 SerDes.
    var linkMode: UInt32 { bits[22...23] }
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

  /// PCS Link Control.
  struct PCSLinkControl: RegisterValue {
    var bits: UInt32
    /// FSV = 1,000 Mbit/s and FDV: what is taken when nothing is negotiated.
    static let gigabitFullDuplex: UInt32 = 4 | 8
    /// FLV, FSD and Force Link: the link is forced.
    static let forced: UInt32 = 1 | 1 << 4 | 1 << 5 | 1 << 7
    /// AN_ENABLE and AN_RESTART: negotiates anew.
    static let negotiate: UInt32 = 0b11 << 16
    /// AN_TIMEOUT: gives negotiation up after a while.
    static let timeout: UInt32 = 1 << 18
  }

  /// Receive Control.
  struct ReceiveControl: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// EN: the receiver is on.
    static let enabled = Self(rawValue: 1 << 1)
    /// UPE and MPE: all unicast, all multicast frames.
    static let promiscuous = Self(rawValue: 0b11 << 3)
    /// LPE: frames up to RLPML, and not up to 1,518 bytes.
    static let longPackets = Self(rawValue: 1 << 5)
    /// BAM: broadcast frames.
    static let broadcast = Self(rawValue: 1 << 15)
    /// VFE: only VLANs in the filter table.
    static let vlanFilter = Self(rawValue: 1 << 18)
    /// SECRC: strips the FCS.
    static let stripCRC = Self(rawValue: 1 << 26)
  }

  /// Transmit Control.
  struct TransmitControl: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// EN: the transmitter is on.
    static let enabled = Self(rawValue: 1 << 1)
    /// PSP: pads short frames to 64 bytes.
    static let padShortPackets = Self(rawValue: 1 << 3)
    /// RTLC: sends again after a late collision.
    static let retransmitLate = Self(rawValue: 1 << 24)
  }

  /// Split and Replication Receive Control.
  struct SplitReceive: RegisterValue {
    var bits: UInt32
    /// BSIZEPACKET: the size of one receive buffer in bytes; the device counts in KiB.
    var bufferSize: Int {
      get { Int(bits[0...6]) * 1024 }
      set { bits[0...6] = UInt32(newValue / 1024) }
    }
    /// DESCTYPE: 1 is advanced descriptors with one buffer each.
    var descriptorType: UInt32 {
      get { bits[25...27] }
      set { bits[25...27] = newValue }
    }
    /// DROP_EN: a frame for an empty ring is dropped, and does not hold up those for other rings.
    var dropsWhenEmpty: Bool {
      get { bits[31...31] == 1 }
      set { bits[31...31] = newValue ? 1 : 0 }
    }
  }

  /// Receive or Transmit Descriptor Control of one ring.
  struct Queue: RegisterValue {
    var bits: UInt32
    /// ENABLE: reads back as 1 when the ring works, as 0 when it has stopped.
    var isEnabled: Bool {
      get { bits[25...25] == 1 }
      set { bits[25...25] = newValue ? 1 : 0 }
    }
    /// PTHRESH, HTHRESH, WTHRESH: when descriptors are fetched ahead, and written back.
    mutating func setThresholds(prefetch: UInt32, host: UInt32, writeBack: UInt32) {
      (bits[0...4], bits[8...12], bits[16...20]) = (prefetch, host, writeBack)
    }
  }

  /// Causes of interrupts that are no queue's.
  struct Causes: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// TXDW and RXDW: a descriptor was sent, or received; without MSI-X.
    static let queues = Self(rawValue: 1 << 0 | 1 << 7)
    /// LSC: the link went up or down.
    static let linkChange = Self(rawValue: 1 << 2)
  }

  /// General Purpose Interrupt Enable.
  struct InterruptMode: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// NSICR: reading ICR clears it, whatever the masks say.
    static let clearOnRead = Self(rawValue: 1 << 0)
    /// Multiple_MSIX: every queue has a vector.
    static let msix = Self(rawValue: 1 << 4)
    /// EIAME: a message masks its vector as EIAM says.
    static let autoMask = Self(rawValue: 1 << 30)
    /// PBA_support: the pending bits are the device's own.
    static let pendingBits = Self(rawValue: 1 << 31)
  }

  /// Extended Interrupt Throttle of one vector.
  struct Throttle: RegisterValue {
    var bits: UInt32
    /// Interval: the least time between two messages in microseconds, up to 8,191.
    var microseconds: Int {
      get { Int(bits[2...14]) }
      set { bits[2...14] = UInt32(max(0, min(newValue, 0x1FFF))) }
    }
  }

  /// Multiple Receive Queues Command.
  struct MultipleQueues: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// RSS alone, without virtual functions; 1 would be VMDq here.
    ///
    /// What is hashed is in the bits of `ReceiveSideScaling.Fields`.
    static let rss = Self(rawValue: 0b010)
  }
}
