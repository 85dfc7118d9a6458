/// The registers of the 82574 and of the 82576 and its relatives that drivers use; typed from the references.
///
/// DATASHEET-UNSEEN: no section is given.
extension RegisterName {
  static let e1000e: [RegisterName] =
    shared + e1000eGeneral + e1000eInterrupts + e1000eRings + filters + statistics
  static let igb: [RegisterName] =
    shared + igbGeneral + igbInterrupts + igbRings + filters + statistics

  // MARK: - Both

  private static let causes =
    "0 TXDW, 1 TXQE, 2 LSC, 3 RXSEQ, 4 RXDMT0, 6 RXO, 7 RXT0, 9 MDAC, 15 TXD_LOW, 16 SRPD, 17 ACK, 18 MNG, "
    + "20 RXQ0, 21 RXQ1, 22 TXQ0, 23 TXQ1, 24 OTHER, 31 INT_ASSERTED"

  private static let shared: [RegisterName] = [
    .init(
      0x00000, "CTRL", "Device Control",
      "0 FD, 2 GIO_DIS, 6 SLU, 9:8 SPEED, 11 FRCSPD, 12 FRCDPX, 26 RST, 31 PHY_RST"),
    .init(0x00008, "STATUS", "Device Status", "1 LU, 3:2 LAN_ID, 7:6 SPEED, 19 GIO_MASTER"),
    .init(0x00010, "EECD", "EEPROM/Flash Control", "6 REQ, 7 GNT, 8 PRES, 9 AUTO_RD"),
    .init(0x00014, "EERD", "EEPROM Read", "0 START, 1 DONE, 15:2 ADDR, 31:16 DATA"),
    .init(
      0x00020, "MDIC", "MDI Control",
      "15:0 DATA, 20:16 REG, 25:21 PHY, 27:26 OP, 28 READY, 29 INT, 30 ERROR"),
    .init(0x00028, "FCAL", "Flow Control Address Low"),
    .init(0x0002C, "FCAH", "Flow Control Address High"),
    .init(0x00030, "FCT", "Flow Control Type"),
    .init(0x00038, "VET", "VLAN Ether Type", "15:0 VET"),
    .init(0x000C0, "ICR", "Interrupt Cause Read", causes, changesWhenRead: true),
    .init(0x000C8, "ICS", "Interrupt Cause Set", causes),
    .init(0x000D0, "IMS", "Interrupt Mask Set", causes),
    .init(0x000D8, "IMC", "Interrupt Mask Clear", causes),
    .init(0x00170, "FCTTV", "Flow Control Transmit Timer Value"),
    .init(0x00400, "TCTL", "Transmit Control", "1 EN, 3 PSP, 11:4 CT, 24 RTLC"),
    .init(0x00404, "TCTL_EXT", "Extended Transmit Control"),
    .init(0x00410, "TIPG", "Transmit Inter-Packet Gap"),
    .init(0x00E00, "LEDCTL", "LED Control"),
    .init(0x01000, "PBA", "Packet Buffer Allocation"),
    .init(0x01010, "EEMNGCTL", "EEPROM Management Control"),
    .init(0x05000, "RXCSUM", "Receive Checksum Control", "13 PCSD"),
    .init(0x05800, "WUC", "Wake Up Control"),
    .init(0x05B00, "GCR", "3GIO Control"),
    .init(
      0x05B50, "SWSM", "Software Semaphore", "0 SMBI, 1 SWESMBI", changesWhenRead: true),
    .init(0x05B54, "FWSM", "Firmware Semaphore"),
    .init(0x05B5C, "SW_FW_SYNC", "Software-Firmware Synchronization"),
  ]

  private static let filters: [RegisterName] = [
    .init(0x05200, "MTA", "Multicast Table Array", count: 128),
    .init(0x05400, "RAL", "Receive Address Low", count: 16, stride: 8),
    .init(0x05404, "RAH", "Receive Address High", "15:0 RAH, 31 AV", count: 16, stride: 8),
    .init(0x05600, "VFTA", "VLAN Filter Table Array", count: 128),
    .init(0x05C80, "RSSRK", "RSS Random Key", count: 10),
  ]

  private static let statistics: [RegisterName] = [
    (0x04000, "CRCERRS", "CRC Errors"), (0x04004, "ALGNERRC", "Alignment Errors"),
    (0x0400C, "RXERRC", "Receive Errors"), (0x04010, "MPC", "Missed Packets"),
    (0x04040, "RLEC", "Length Errors"), (0x04074, "GPRC", "Good Frames Received"),
    (0x04080, "GPTC", "Good Frames Sent"), (0x04088, "GORCL", "Good Bytes Received Low"),
    (0x0408C, "GORCH", "Good Bytes Received High"), (0x04090, "GOTCL", "Good Bytes Sent Low"),
    (0x04094, "GOTCH", "Good Bytes Sent High"), (0x040A4, "RUC", "Undersize Frames"),
    (0x040A8, "RFC", "Fragments"), (0x040AC, "ROC", "Oversize Frames"), (0x040B0, "RJC", "Jabber"),
    (0x040C0, "TORL", "All Bytes Received Low"), (0x040D0, "TPR", "All Frames Received"),
    (0x040D4, "TPT", "All Frames Sent"),
  ].map { RegisterName($0, $1, $2, changesWhenRead: true) }

  /// The registers that all rings have, from the start of a bank.
  private static func rings(
    _ bank: Int, _ letter: String, _ way: String, _ count: Int, _ stride: Int
  )
    -> [RegisterName]
  {
    [
      (0x00, "DBAL", "Descriptor Base Address Low", ""),
      (0x04, "DBAH", "Descriptor Base Address High", ""),
      (0x08, "DLEN", "Descriptor Length", ""), (0x10, "DH", "Descriptor Head", "15:0 HEAD"),
      (0x18, "DT", "Descriptor Tail", "15:0 TAIL"),
    ].map { offset, name, title, fields in
      RegisterName(
        bank + offset, letter + name, "\(way) \(title)", fields, count: count, stride: stride)
    }
  }

  // MARK: - 82574

  private static let e1000eGeneral: [RegisterName] = [
    .init(
      0x00018, "CTRL_EXT", "Extended Device Control", "24 EIAME, 27 IAME, 28 DRV_LOAD, 31 PBA_CLR"),
    .init(
      0x00100, "RCTL", "Receive Control",
      "1 EN, 3 UPE, 4 MPE, 5 LPE, 15 BAM, 18 VFE, 26 SECRC, 30:27 FLXBUF"),
    .init(0x00F00, "EXTCNF_CTRL", "Extended Configuration Control", "5 MDIO_SW_OWNERSHIP"),
    .init(0x01008, "PBS", "Packet Buffer Size"),
    .init(0x02160, "FCRTL", "Flow Control Receive Threshold Low"),
    .init(0x02168, "FCRTH", "Flow Control Receive Threshold High"),
    .init(0x02170, "PSRCTL", "Packet Split Receive Control"),
    .init(0x02C00, "RSRPD", "Receive Small Packet Detect"),
    .init(0x02C08, "RAID", "Receive ACK Interrupt Delay"),
    .init(0x05008, "RFCTL", "Receive Filter Control", "12 ACK_DIS, 15 EXTEN"),
    .init(
      0x05818, "MRQC", "Multiple Receive Queues Command",
      "1:0 ENABLE, 16 TCP4, 17 IPV4, 18 TCP6EX, 19 IPV6EX, 20 IPV6"),
    .init(0x05C00, "RETA", "Redirection Table", "7 Q0, 15 Q1, 23 Q2, 31 Q3", count: 32),
    .init(0x05B64, "GCR2", "3GIO Control 2"),
    .init(0x05B68, "PBACLR", "MSI-X Pending Bits Clear"),
  ]

  private static let e1000eInterrupts: [RegisterName] = [
    .init(0x000C4, "ITR", "Interrupt Throttle", "15:0 INTERVAL"),
    .init(0x000DC, "EIAC", "Extended Interrupt Auto Clear", causes),
    .init(0x000E0, "IAM", "Interrupt Acknowledge Auto Mask", causes),
    .init(
      0x000E4, "IVAR", "Interrupt Vector Allocation",
      "2:0 RXQ0, 3 RXQ0_VALID, 6:4 RXQ1, 7 RXQ1_VALID, 10:8 TXQ0, 11 TXQ0_VALID, 14:12 TXQ1, 15 TXQ1_VALID, "
        + "18:16 OTHER, 19 OTHER_VALID, 31 TX_INT_EVERY_WB"),
    .init(0x000E8, "EITR", "Extended Interrupt Throttle", "15:0 INTERVAL", count: 5),
  ]

  private static let e1000eRings: [RegisterName] =
    rings(0x02800, "R", "Receive", 2, 0x100) + rings(0x03800, "T", "Transmit", 2, 0x100) + [
      .init(0x02820, "RDTR", "Receive Interrupt Delay"),
      .init(
        0x02828, "RXDCTL", "Receive Descriptor Control", "21:16 WTHRESH, 24 GRAN", count: 2,
        stride: 0x100),
      .init(0x0282C, "RADV", "Receive Interrupt Absolute Delay"),
      .init(0x03820, "TIDV", "Transmit Interrupt Delay"),
      .init(
        0x03828, "TXDCTL", "Transmit Descriptor Control", "21:16 WTHRESH, 22 COUNT_DESC, 24 GRAN",
        count: 2, stride: 0x100),
      .init(0x0382C, "TADV", "Transmit Interrupt Absolute Delay"),
      .init(
        0x03840, "TARC", "Transmit Arbitration Count", "10 ENABLE", count: 2, stride: 0x100),
    ]

  // MARK: - 82576, I350, I210, I211

  private static let igbGeneral: [RegisterName] = [
    .init(
      0x00018, "CTRL_EXT", "Extended Device Control",
      "7 SDP3_DATA, 14 PFRSTD, 23:22 LINK_MODE, 28 DRV_LOAD"),
    .init(
      0x00100, "RCTL", "Receive Control", "1 EN, 3 UPE, 4 MPE, 5 LPE, 15 BAM, 18 VFE, 26 SECRC"),
    .init(0x04200, "PCS_CFG", "PCS Configuration 0", "3 PCS_EN"),
    .init(
      0x04208, "PCS_LCTL", "PCS Link Control",
      "0 FLV, 2:1 FSV, 3 FDV, 4 FSD, 5 FORCE_LINK, 7 FORCE_FC, 16 AN_ENABLE, 17 AN_RESTART, 18 AN_TIMEOUT"
    ),
    .init(0x05004, "RLPML", "Receive Long Packet Maximum Length", "13:0 LENGTH"),
    .init(
      0x05818, "MRQC", "Multiple Receive Queues Command",
      "2:0 ENABLE, 16 TCP4, 17 IPV4, 20 IPV6, 21 TCP6, 22 UDP4, 23 UDP6"),
    .init(0x0581C, "VT_CTL", "Virtualization Control"),
    .init(0x05C00, "RETA", "Redirection Table", "2:0 Q0, 10:8 Q1, 18:16 Q2, 26:24 Q3", count: 32),
    .init(0x0A000, "UTA", "Unicast Table Array", count: 128),
  ]

  private static let igbInterrupts: [RegisterName] = [
    .init(
      0x01514, "GPIE", "General Purpose Interrupt Enable",
      "0 NSICR, 4 MULTIPLE_MSIX, 30 EIAME, 31 PBA_SUPPORT"),
    .init(0x01520, "EICS", "Extended Interrupt Cause Set", "24:0 VECTORS"),
    .init(0x01524, "EIMS", "Extended Interrupt Mask Set", "24:0 VECTORS"),
    .init(0x01528, "EIMC", "Extended Interrupt Mask Clear", "24:0 VECTORS"),
    .init(0x0152C, "EIAC", "Extended Interrupt Auto Clear", "24:0 VECTORS"),
    .init(0x01530, "EIAM", "Extended Interrupt Auto Mask", "24:0 VECTORS"),
    .init(
      0x01580, "EICR", "Extended Interrupt Cause", "24:0 VECTORS", changesWhenRead: true),
    .init(0x01680, "EITR", "Extended Interrupt Throttle", "14:2 INTERVAL", count: 25),
    .init(
      0x01700, "IVAR", "Interrupt Vector Allocation, of queues n and n + 8",
      "4:0 RX, 7 RX_VALID, 12:8 TX, 15 TX_VALID, 20:16 RX8, 23 RX8_VALID, 28:24 TX8, 31 TX8_VALID",
      count: 8),
    .init(
      0x01740, "IVAR_MISC", "Other Vector Allocation",
      "4:0 TIMER, 7 TIMER_VALID, 12:8 OTHER, 15 OTHER_VALID"),
  ]

  private static let thresholds = "4:0 PTHRESH, 12:8 HTHRESH, 20:16 WTHRESH, 25 ENABLE"

  private static let igbRings: [RegisterName] =
    rings(0x0C000, "R", "Receive", 16, 0x40) + rings(0x0E000, "T", "Transmit", 16, 0x40) + [
      .init(
        0x0C00C, "SRRCTL", "Split Receive Control",
        "6:0 BSIZEPACKET, 13:8 BSIZEHEADER, 27:25 DESCTYPE, 31 DROP_EN", count: 16, stride: 0x40),
      .init(
        0x0C028, "RXDCTL", "Receive Descriptor Control", thresholds, count: 16, stride: 0x40),
      .init(
        0x0C030, "RQDPC", "Receive Queue Drop Count", "11:0 COUNT", count: 16, stride: 0x40,
        changesWhenRead: true),
      .init(
        0x0C038, "DVMOLR", "DMA VM Offload", "31 STRCRC", count: 16, stride: 0x40),
      .init(0x0E014, "TXCTL", "Transmit DCA Control", count: 16, stride: 0x40),
      .init(
        0x0E028, "TXDCTL", "Transmit Descriptor Control", thresholds, count: 16, stride: 0x40),
      .init(0x0E038, "TDWBAL", "Transmit Head Write-Back Address Low", count: 16, stride: 0x40),
    ]
}
