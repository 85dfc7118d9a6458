/// Registers of the 82599 (datasheet revision 3.3, chapter 8), in bytes from the start of BAR 0.
///
/// The X540 and the X550 have them at the same offsets.
enum IxgbeRegister {
  /// Device Control, §8.2.3.1.1.
  static let ctrl = Register<DeviceControl>(at: 0x00000)
  /// Device Status, §8.2.3.1.2: PCIe Master Enable Status in bit 19, requests may be on their way.
  static let status = Register<UInt32>(at: 0x00008)
  /// Extended Device Control: NS_DIS in bit 16 keeps no-snoop off the bus.
  static let ctrlExt = Register<UInt32>(at: 0x00018)
  /// Extended SDP Control: on SFP cards pin 3 switches the laser off.
  static let esdp = Register<UInt32>(at: 0x00020)
  /// EEPROM/Flash Control, §8.2.3.2.1: ARD in bit 9.
  static let eec = Register<UInt32>(at: 0x10010)
  /// Extended Interrupt Mask Clear, for the causes of EICR.
  static let eimc = Register<UInt32>(at: 0x00888)

  /// Auto-Negotiation Control, the link of the 82599: LMS in bits 15:13 (3 is 10 Gbit/s serial, SFI, as
  /// SFP+ modules want it), Restart_AN in bit 12.
  static let autoc = Register<UInt32>(at: 0x042A0)
  /// MAC Core Control 0: checksums, padding and long frames.
  static let hlreg0 = Register<MACControl>(at: 0x04240)
  /// Max Frame Size, in bits 31:16, with FCS.
  static let maxfrs = Register<UInt32>(at: 0x04268)

  /// Receive DMA Control, §8.2.3.8.8.
  static let rdrxctl = Register<ReceiveDMAControl>(at: 0x02F00)
  /// Receive Control: RXEN in bit 0.
  static let rxctrl = Register<UInt32>(at: 0x03000)
  /// Receive Packet Buffer Size of buffer `n`, §8.2.3.8.9: KiB in bits 19:10.
  static func rxpbsize(_ n: Int) -> Register<UInt32> { Register(at: 0x03C00 + 4 * n) }
  /// Filter Control: BAM in bit 10 (broadcast), UPE and MPE in bits 9:8 (all unicast, all multicast).
  static let fctrl = Register<UInt32>(at: 0x05080)
  /// Receive Address 0, high: the last two bytes, and AV (address valid) in bit 31.
  static let rah0 = Register<UInt32>(at: 0x05404)
  /// Security Receive Control: RX_DIS in bit 1.
  static let secrxctrl = Register<UInt32>(at: 0x08D00)
  /// Security Receive Status: SECRX_RDY in bit 0.
  static let secrxstat = Register<UInt32>(at: 0x08D04)

  /// DMA Transmit Control: TE in bit 0.
  static let dmatxctl = Register<UInt32>(at: 0x04A80)
  /// DMA Transmit TCP Max Allowed Size Requests.
  static let dtxmxszrq = Register<UInt32>(at: 0x08100)
  /// DCB Transmit Descriptor Plane Control: ARBDIS in bit 6.
  static let rttdcs = Register<UInt32>(at: 0x04900)
  /// Transmit Packet Buffer Size of buffer `n`: KiB in bits 19:10.
  static func txpbsize(_ n: Int) -> Register<UInt32> { Register(at: 0x0CC00 + 4 * n) }
  /// Transmit Packet Buffer Threshold of buffer `n`, in KiB.
  static func txpbthresh(_ n: Int) -> Register<UInt32> { Register(at: 0x04950 + 4 * n) }
}

/// The registers of one ring: receive and transmit rings have the same layout.
struct IxgbeRingRegisters {
  private let block: Int
  /// The ring among all of the card, receive rings first.
  let index: Int
  static let count = 256

  /// Receive ring `n`; from 64 on they are in a second block.
  static func receive(_ n: Int) -> Self {
    Self(block: n < 64 ? 0x01000 + 0x40 * n : 0x0D000 + 0x40 * (n - 64), index: n)
  }
  /// Transmit ring `n`.
  static func transmit(_ n: Int) -> Self { Self(block: 0x06000 + 0x40 * n, index: 128 + n) }

  /// RDBAL and TDBAL, Descriptor Base Address Low: 128-byte aligned.
  var baseLow: Register<UInt32> { Register(at: block) }
  /// RDBAH and TDBAH, Descriptor Base Address High.
  var baseHigh: Register<UInt32> { Register(at: block + 0x04) }
  /// RDLEN and TDLEN, Descriptor Length, in bytes.
  var length: Register<UInt32> { Register(at: block + 0x08) }
  /// RDH and TDH, Descriptor Head.
  var head: Register<UInt32> { Register(at: block + 0x10) }
  /// RDT and TDT, Descriptor Tail.
  var tail: Register<UInt32> { Register(at: block + 0x18) }
  /// RXDCTL and TXDCTL, Descriptor Control: ENABLE in bit 25 reads back as 1 when the ring works, as 0 when
  /// it has stopped.
  var control: Register<UInt32> { Register(at: block + 0x28) }
  /// DCA_RXCTRL, DCA Receive Control; receive rings only.
  var dcaRxctrl: Register<UInt32> { Register(at: block + 0x0C) }
  /// SRRCTL, Split Receive Control, §8.2.3.8.7; receive rings only.
  var srrctl: Register<SplitReceiveControl> { Register(at: block + 0x14) }
}

/// Device Control, §8.2.3.1.1.
struct DeviceControl: OptionSet, RegisterValue {
  let rawValue: UInt32
  /// PCIe Master Disable: no new requests on the bus.
  static let masterDisable = Self(rawValue: 1 << 2)
  /// LRST: link reset.
  static let linkReset = Self(rawValue: 1 << 3)
  /// RST: resets the device; reads as 0 once the reset is over.
  static let deviceReset = Self(rawValue: 1 << 26)
}

/// MAC Core Control 0.
struct MACControl: OptionSet, RegisterValue {
  let rawValue: UInt32
  /// TXCRCEN and RXCRCSTRP: the FCS is the card's business.
  static let ownFCS = Self(rawValue: 0b11)
  /// JUMBOEN: frames up to MAXFRS, and not up to 1,518 bytes.
  static let jumbo = Self(rawValue: 1 << 2)
  /// TXPADEN: short frames grow to 60 bytes.
  static let padShortFrames = Self(rawValue: 1 << 10)
}

/// Receive DMA Control, §8.2.3.8.8.
struct ReceiveDMAControl: RegisterValue {
  var bits: UInt32
  /// DMAIDONE: the DMA engine has started.
  var isInitialized: Bool { bits[3...3] == 1 }
  /// CRCSTRIP must agree with HLREG0, RSCFRSTSIZE be 0, RSCACKC and FCOE_WRFIX be 1.
  mutating func setRequired() {
    bits[1...1] = 1
    bits[17...21] = 0
    bits[25...26] = 0b11
  }
}

/// Split Receive Control, §8.2.3.8.7.
struct SplitReceiveControl: RegisterValue {
  var bits: UInt32
  /// BSIZEPACKET: the size of one receive buffer in bytes; the device counts in KiB.
  var bufferSize: Int {
    get { Int(bits[0...4]) * 1024 }
    set { bits[0...4] = UInt32(newValue / 1024) }
  }
}
