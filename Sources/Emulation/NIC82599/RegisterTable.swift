/// The registers of the 82599, in the order of the reference's sections.
///
/// Typed from the reference (`82599.md`, sections 2 to 8, and `82599-linux-observed.md`), with its
/// reset values and writable bits; where it gives none, all bits are writable and reset to 0.
enum RegisterTable {
  /// All blocks of a family; a later one takes the place of an earlier one at the same offset.
  static func blocks(of family: NIC82599.Family) -> [RegisterBlock] {
    let common =
      general + interrupt + receive + receiveFilters + receiveQueues + transmit + transmitQueues
      + dataCenter + link + flowControl + virtualization + security + statistics
    return common + differences(of: family)
  }

  /// Where a register has a second address (section 2).
  ///
  /// DATASHEET-CONFLICT: a second address of TQSM, 7300, would be transmit queue 76; that is what it is here.
  static let aliases: [RegisterAlias] = [
    RegisterAlias(0x00004, of: 0x00000),  // CTRL
    RegisterAlias(0x02100, of: 0x01014, ofStride: 0x40, count: 16),  // SRRCTL
    RegisterAlias(0x02200, of: 0x0100C, ofStride: 0x40, count: 16),  // DCA_RXCTRL
    RegisterAlias(0x05400, stride: 8, of: 0x0A200, ofStride: 8, count: 16),  // RAL
    RegisterAlias(0x05404, stride: 8, of: 0x0A204, ofStride: 8, count: 16),  // RAH
    RegisterAlias(0x05480, of: 0x0EA00, count: 16),  // PSRTYPE
    RegisterAlias(0x05818, of: 0x0EC80),  // MRQC
    RegisterAlias(0x05C00, of: 0x0EB00, count: 32),  // RETA
    RegisterAlias(0x05C80, of: 0x0EB80, count: 10),  // RSSRK
    RegisterAlias(0x08680, of: 0x06030, ofStride: 0x40, count: 16),  // QPTC
  ]

  /// General control, EEPROM, semaphores, firmware (section 3).
  static let general: [RegisterBlock] = [
    // LNK_RST (3) and RST (26) clear themselves.
    .init("CTRL", 0x00000, writable: ~(1 << 3 | 1 << 26), effect: .deviceControl),
    .init("STATUS", 0x00008, .readOnly, effect: .deviceStatus),
    .init("CTRL_EXT", 0x00018),
    .init("ESDP", 0x00020, reset: 0x4, effect: .softwarePins),
    .init("I2CCTL", 0x00028, .command, effect: .twoWire),
    .init("FRTIMER", 0x00048, .readOnly, effect: .freeRunningTimer),
    .init("TCPTIMER", 0x0004C),
    .init("LEDCTL", 0x00200, reset: 0x0504_0100),
    .init("EXVET", 0x05078, reset: 0x8100 << 16),
    // DO (3), GNT (7), PRES (8), ARD (9), ADDR_SIZE (10) and SIZE (14:11) are the card's.
    .init("EEC", 0x10010, reset: 0x2730, writable: 0x77, effect: .eepromControl),
    .init("EERD", 0x10014, .command, effect: .eepromRead),
    .init("EEWR", 0x10018, .command, effect: .eepromWrite),
    .init("FLA", 0x1001C),
    .init("EEMNGCTL", 0x10110, reset: 0xC_0000, writable: ~0xC_0000),
    .init("EEMNGDATA", 0x10114),
    .init("SWSM", 0x10140, .command, effect: .swsm),
    // Firmware is valid: 0 makes Linux warn, again and again (observed, 2.10).
    .init("FWSM", 0x10148, .readOnly, reset: 0x8000),
    .init("FACTPS", 0x10150, .readOnly),
    .init("SW_FW_SYNC", 0x10160, .command, effect: .gssr),
    .init("GCR", 0x11000),
    .init("GCR_EXT", 0x11050),
    .init("MREVID", 0x11064, .readOnly),
    .init("PBACL", 0x11068),
    .init("DCA_CTRL", 0x11074),
    .init("CIAA", 0x11088),
    .init("CIAD", 0x1108C),
    .init("CORECTL", 0x14F00),
    .init("FLEX_MNG", 0x15800, count: 448),
    .init("HICR", 0x15F00, .command, effect: .hostInterface),
    .init("FWSTS", 0x15F0C, .readOnly),
  ]

  /// Causes, masks, vectors (section 4).
  static let interrupt: [RegisterBlock] = [
    .init("EICR", 0x00800, .command, effect: .eicr),
    .init("EICS", 0x00808, .command, effect: .eics),
    .init("EIAC", 0x00810, effect: .eiac),
    .init("EITR", 0x00820, count: 24, writable: 0x7FFF_FFFF, effect: .eitr),
    .init("EIMS", 0x00880, .command, effect: .eims),
    .init("EIMC", 0x00888, .command, effect: .eimc),
    .init("EIAM", 0x00890, .command, effect: .eiam),
    .init("EITRSEL", 0x00894),
    .init("GPIE", 0x00898, effect: .gpie),
    .init("IVAR", 0x00900, count: 64, effect: .ivar),
    .init("IVAR_MISC", 0x00A00, effect: .ivarMisc),
    .init("EICS_EX", 0x00A90, count: 2, .command, effect: .eicsExtended),
    .init("EIMS_EX", 0x00AA0, count: 2, .command, effect: .eimsExtended),
    .init("EIMC_EX", 0x00AB0, count: 2, .command, effect: .eimcExtended),
    .init("EIAM_EX", 0x00AD0, count: 2, .command, effect: .eiamExtended),
    .init("EITR", 0x12300, count: 105, first: 24, writable: 0x7FFF_FFFF, effect: .eitr),
  ]

  /// What the X540 and X550 have in other places (initialization reference, section 9).
  static func differences(of family: NIC82599.Family) -> [RegisterBlock] {
    // Their receive packet buffer is 384 KiB.
    let packetBuffer = RegisterBlock(
      "RXPBSIZE", 0x03C00, count: 8, reset: 0x180 << 10, writable: 0xF_FC00)
    // Their EEPROM is a copy of flash memory, which is never behind: FLUDONE (26).
    let eepromControl = RegisterBlock(
      "EEC", 0x10010, reset: 0x0400_2730, writable: 0x77, effect: .eepromControl)
    switch family {
    case .i82599: return []
    case .x540: return [packetBuffer, eepromControl]
    case .x550:
      return [
        packetBuffer, eepromControl,
        .init("ERETA", 0x0EE80, count: 96, effect: .receiveConfiguration),
      ]
    }
  }
}
