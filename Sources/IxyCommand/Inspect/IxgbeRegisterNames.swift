/// The registers of the 82599 family that drivers use, in the order of their offsets; typed from the references.
extension RegisterName {
  static let ixgbe: [RegisterName] = general + interrupts + receive + transmit + link + statistics

  private static let general: [RegisterName] = [
    .init(0x00000, "CTRL", "Device Control", "2 GIO_DIS, 3 LRST, 26 RST", section: "§8.2.3.1.1"),
    .init(
      0x00008, "STATUS", "Device Status", "3:2 LAN_ID, 7 LINK_UP, 17:10 NUM_VFS, 19 GIO_MASTER",
      section: "§8.2.3.1.2"),
    .init(
      0x00018, "CTRL_EXT", "Extended Device Control",
      "14 PFRSTD, 16 NS_DIS, 17 RO_DIS, 26 EXT_VLAN, 28 DRV_LOAD"),
    .init(0x00020, "ESDP", "Extended SDP Control", "7:0 SDP_DATA, 15:8 SDP_DIR, 17:16 SDP_NATIVE"),
    .init(
      0x00028, "I2CCTL", "I2C Control", "0 CLK_IN, 1 CLK_OUT, 2 DATA_IN, 3 DATA_OUT"),
    .init(0x00200, "LEDCTL", "LED Control", "3:0 LED0, 11:8 LED1, 19:16 LED2, 27:24 LED3"),
    .init(
      0x10010, "EEC", "EEPROM/Flash Control", "6 REQ, 7 GNT, 8 PRES, 9 ARD, 14:11 SIZE",
      section: "§8.2.3.2.1"),
    .init(0x10014, "EERD", "EEPROM Read", "0 START, 1 DONE, 15:2 ADDR, 31:16 DATA"),
    .init(0x10140, "SWSM", "Software Semaphore", "0 SMBI, 1 SWESMBI", changesWhenRead: true),
    .init(0x10148, "FWSM", "Firmware Semaphore", "3:1 MODE, 15 VALID, 24:19 ERROR"),
    .init(
      0x10160, "SW_FW_SYNC", "Software-Firmware Synchronization",
      "0 EEP, 1 PHY0, 2 PHY1, 3 MAC_CSR, 4 FLASH"),
    .init(
      0x11050, "GCR_EXT", "PCIe Control Extended", "1:0 VT_MODE, 30 BUFFERS_CLEAR",
      section: "§8.2.3.4.12"),
  ]

  private static let interrupts: [RegisterName] = [
    .init(
      0x00800, "EICR", "Extended Interrupt Cause", "15:0 RTxQ, 17 RX_MISS, 20 LSC, 31 OTHER",
      changesWhenRead: true),
    .init(0x00808, "EICS", "Extended Interrupt Cause Set", "15:0 RTxQ, 20 LSC, 31 OTHER"),
    .init(0x00810, "EIAC", "Extended Interrupt Auto Clear", "15:0 RTxQ"),
    .init(
      0x00820, "EITR", "Extended Interrupt Throttle", "11:3 INTERVAL, 15 LLI_MOD, 31 CNT_WDIS",
      count: 24),
    .init(0x00880, "EIMS", "Extended Interrupt Mask Set", "15:0 RTxQ, 20 LSC, 31 OTHER"),
    .init(0x00888, "EIMC", "Extended Interrupt Mask Clear", "15:0 RTxQ, 20 LSC, 31 OTHER"),
    .init(0x00890, "EIAM", "Extended Interrupt Auto Mask", "15:0 RTxQ"),
    .init(
      0x00898, "GPIE", "General Purpose Interrupt Enable",
      "4 MSIX_MODE, 5 OCD, 6 EIMEN, 30 EIAME, 31 PBA_SUPPORT"),
    .init(
      0x00900, "IVAR", "Interrupt Vector Allocation",
      "5:0 RX0, 7 RX0_VALID, 13:8 TX0, 15 TX0_VALID, 21:16 RX1, 23 RX1_VALID, 29:24 TX1, 31 TX1_VALID",
      count: 64),
    .init(
      0x00A00, "IVAR_MISC", "Other Vector Allocation",
      "6:0 TIMER, 7 TIMER_VALID, 14:8 OTHER, 15 OTHER_VALID"),
    .init(0x00AA0, "EIMS_EX", "Interrupt Mask Set, by vector", count: 2),
    .init(0x00AB0, "EIMC_EX", "Interrupt Mask Clear, by vector", count: 2),
  ]

  private static let ring: [(Int, String, String, String)] = [
    (0x00, "DBAL", "Descriptor Base Address Low", ""),
    (0x04, "DBAH", "Descriptor Base Address High", ""),
    (0x08, "DLEN", "Descriptor Length", ""),
    (0x10, "DH", "Descriptor Head", "15:0 HEAD"),
    (0x18, "DT", "Descriptor Tail", "15:0 TAIL"),
  ]

  /// The registers that all rings have, from the start of a bank.
  private static func rings(_ bank: Int, _ letter: String, _ way: String, _ count: Int)
    -> [RegisterName]
  {
    ring.map { offset, name, title, fields in
      RegisterName(
        bank + offset, letter + name, "\(way) \(title)", fields, count: count, stride: 0x40)
    }
  }

  /// The receive queues are in two banks.
  private static func receiveBank(_ bank: Int) -> [RegisterName] {
    let count = 64
    return rings(bank, "R", "Receive", count) + [
      .init(
        bank + 0x0C, "DCA_RXCTRL", "Receive DCA Control",
        "5 DESC_DCA, 6 HEAD_DCA, 7 DATA_DCA, 9 DESC_RRO, 12 MUST_BE_0, 13 DATA_WRO",
        count: count, stride: 0x40),
      .init(
        bank + 0x14, "SRRCTL", "Split Receive Control",
        "4:0 BSIZEPACKET, 13:8 BSIZEHEADER, 24:22 RDMTS, 27:25 DESCTYPE, 28 DROP_EN",
        section: "§8.2.3.8.7", count: count, stride: 0x40),
      .init(
        bank + 0x28, "RXDCTL", "Receive Descriptor Control", "13:0 RLPML, 25 ENABLE, 30 VME",
        count: count, stride: 0x40),
      .init(
        bank + 0x2C, "RSCCTL", "Receive Coalescing Control", "0 RSCEN, 3:2 MAXDESC", count: count,
        stride: 0x40),
    ]
  }

  private static let receive: [RegisterName] =
    receiveBank(0x01000) + receiveBank(0x0D000) + [
      .init(
        0x02F00, "RDRXCTL", "Receive DMA Control",
        "1 CRCSTRIP, 3 DMAIDONE, 21:17 RSCFRSTSIZE, 25 RSCACKC, 26 FCOE_WRFIX",
        section: "§8.2.3.8.8"),
      .init(0x03000, "RXCTRL", "Receive Control", "0 RXEN"),
      .init(
        0x03C00, "RXPBSIZE", "Receive Packet Buffer Size", "19:10 SIZE", section: "§8.2.3.8.9",
        count: 8),
      .init(0x05000, "RXCSUM", "Receive Checksum Control", "12 IPPCSE, 13 PCSD"),
      .init(0x05008, "RFCTL", "Receive Filter Control", "5 RSC_DIS, 6 NFSW_DIS, 7 NFSR_DIS"),
      .init(0x05080, "FCTRL", "Filter Control", "1 SBP, 8 MPE, 9 UPE, 10 BAM"),
      .init(0x05088, "VLNCTRL", "VLAN Control", "15:0 VET, 28 CFI, 29 CFIEN, 30 VFE"),
      .init(0x05090, "MCSTCTRL", "Multicast Control", "1:0 MO, 2 MFE"),
      .init(0x05128, "ETQF", "EType Queue Filter", "15:0 ETYPE, 31 FILTER_EN", count: 8),
      .init(0x05200, "MTA", "Multicast Table Array", count: 128),
      .init(0x05400, "RAL", "Receive Address Low", count: 16, stride: 8),
      .init(0x05404, "RAH", "Receive Address High", "15:0 RAH, 31 AV", count: 16, stride: 8),
      .init(
        0x05818, "MRQC", "Multiple Receive Queues Command",
        "3:0 MRQE, 16 TCP4, 17 IPV4, 20 IPV6, 21 TCP6, 22 UDP4, 23 UDP6"),
      .init(0x05C00, "RETA", "Redirection Table", "3:0 Q0, 11:8 Q1, 19:16 Q2, 27:24 Q3", count: 32),
      .init(0x05C80, "RSSRK", "RSS Random Key", count: 10),
      .init(0x08D00, "SECRXCTRL", "Security Receive Control", "0 SECRX_DIS, 1 RX_DIS"),
      .init(0x08D04, "SECRXSTAT", "Security Receive Status", "0 SECRX_RDY"),
      .init(0x0A000, "VFTA", "VLAN Filter Table Array", count: 128),
      .init(
        0x0E600, "FTQF", "Five Tuple Queue Filter", "1:0 PROTOCOL, 4:2 PRIORITY, 31 ENABLE",
        count: 128),
    ]

  private static let transmit: [RegisterName] =
    rings(0x06000, "T", "Transmit", 128) + [
      .init(
        0x06028, "TXDCTL", "Transmit Descriptor Control",
        "6:0 PTHRESH, 14:8 HTHRESH, 22:16 WTHRESH, 25 ENABLE, 26 SWFLSH", count: 128, stride: 0x40),
      .init(
        0x06038, "TDWBAL", "Transmit Head Write-Back Address Low", "0 HEAD_WB_EN",
        section: "§8.2.3.9.11", count: 128, stride: 0x40),
      .init(
        0x04900, "RTTDCS", "DCB Transmit Descriptor Plane Control", "6 ARBDIS, 22 BDPM, 23 BPBFSM"),
      .init(0x04950, "TXPBTHRESH", "Transmit Packet Buffer Threshold", "9:0 THRESH", count: 8),
      .init(0x04A80, "DMATXCTL", "DMA Transmit Control", "0 TE, 1 NS, 3 GDV, 31:16 VT"),
      .init(0x08100, "DTXMXSZRQ", "DMA Transmit Maximum Size of Requests", "11:0 MAX_BYTES"),
      .init(0x08120, "MTQC", "Multiple Transmit Queues Command", "0 RT_ENA, 1 VT_ENA, 3:2 NUM_TC"),
      .init(0x0CC00, "TXPBSIZE", "Transmit Packet Buffer Size", "19:10 SIZE", count: 8),
    ]

  private static let link: [RegisterName] = [
    .init(
      0x04240, "HLREG0", "MAC Core Control 0",
      "0 TXCRCEN, 1 RXCRCSTRP, 2 JUMBOEN, 10 TXPADEN, 15 LPBK, 27 RXLNGTHERREN"),
    .init(0x04268, "MAXFRS", "Max Frame Size", "31:16 MFS"),
    .init(0x04294, "MFLCN", "MAC Flow Control", "0 PMCF, 1 DPF, 2 RPFCE, 3 RFCE"),
    .init(0x042A0, "AUTOC", "Auto-Negotiation Control", "0 FLU, 12 RESTART_AN, 15:13 LMS"),
    .init(
      0x042A4, "LINKS", "Link Status",
      "7 LINK_LATCHED, 20 AN_1G, 29:28 LINK_SPEED, 30 LINK_UP, 31 KX_AN_COMP"),
    .init(0x042A8, "AUTOC2", "Auto-Negotiation Control 2", "17:16 10G_PMA"),
    .init(0x03D00, "FCCFG", "Flow Control Configuration", "4:3 TFCE"),
  ]

  private static let counters: [(Int, String, String)] = [
    (0x04000, "CRCERRS", "CRC Errors"), (0x04004, "ILLERRC", "Illegal Bytes"),
    (0x04008, "ERRBC", "Error Bytes"), (0x04040, "RLEC", "Length Errors"),
    (0x040A4, "RUC", "Undersize Frames"), (0x040A8, "RFC", "Fragments"),
    (0x040AC, "ROC", "Oversize Frames"), (0x040B0, "RJC", "Jabber"),
    (0x04074, "GPRC", "Good Frames Received"), (0x04080, "GPTC", "Good Frames Sent"),
  ]

  private static let statistics: [RegisterName] =
    counters.map { RegisterName($0, $1, $2, changesWhenRead: true) } + [
      .init(0x03FA0, "MPC", "Missed Packets", count: 8, changesWhenRead: true),
      .init(
        0x01430, "QPRDC", "Packets Dropped, by queue", count: 16, stride: 0x40,
        changesWhenRead: true),
    ]
}
