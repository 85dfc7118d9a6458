/// Reception (section 5).
extension RegisterTable {
  /// What concerns all receive queues (section 5).
  static let receive: [RegisterBlock] = [
    .init("RQSMR", 0x02300, count: 32, effect: .receiveConfiguration),
    // DMAIDONE (3) is the card's.
    .init(
      "RDRXCTL", 0x02F00, reset: 0x0010_8808, writable: ~(1 << 3), effect: .receiveConfiguration),
    .init("QDE", 0x02F04, effect: .receiveConfiguration),
    .init("RDDCC", 0x02F20),
    .init("RXCTRL", 0x03000, effect: .receiveControl),
    .init("STARCTRL", 0x03024),
    .init("RSCDBU", 0x03028),
    .init("RXMEMWRAP", 0x03190, .readOnly),
    .init("RXPBSIZE", 0x03C00, count: 8, reset: 0x200 << 10, writable: 0xF_FC00),
    .init("RXCSUM", 0x05000, effect: .receiveConfiguration),
    .init("RFCTL", 0x05008, effect: .receiveConfiguration),
    .init("RXFECCERR0", 0x051B8),
    .init("PSRTYPE", 0x0EA00, count: 64, effect: .receiveConfiguration),
    .init("RETA", 0x0EB00, count: 32, effect: .receiveConfiguration),
    .init("RSSRK", 0x0EB80, count: 10, effect: .receiveConfiguration),
    .init("RQTC", 0x0EC70, effect: .receiveConfiguration),
    .init("MRQC", 0x0EC80, effect: .receiveConfiguration),
  ]

  /// Which frames are taken, and where they go (section 5).
  static let receiveFilters: [RegisterBlock] = [
    .init("FCTRL", 0x05080, effect: .receiveConfiguration),
    .init("VLNCTRL", 0x05088, reset: 0x8100, effect: .receiveConfiguration),
    .init("MCSTCTRL", 0x05090, writable: 0x7, effect: .receiveConfiguration),
    .init("ETQF", 0x05128, count: 8, effect: .receiveConfiguration),
    .init("MTA", 0x05200, count: 128, effect: .receiveConfiguration),
    .init("VFTA", 0x0A000, count: 128, effect: .receiveConfiguration),
    .init("RAL", 0x0A200, count: 128, stride: 8, effect: .receiveConfiguration),
    // Linux's register test wants bits 30:16 to stay 0 (observed, 2.13).
    .init(
      "RAH", 0x0A204, count: 128, stride: 8, writable: 0x8000_FFFF, effect: .receiveConfiguration),
    .init("MPSAR", 0x0A600, count: 256),
    .init("SAQF", 0x0E000, count: 128),
    .init("DAQF", 0x0E200, count: 128),
    .init("SDPQF", 0x0E400, count: 128),
    .init("FTQF", 0x0E600, count: 128),
    .init("L34T_IMIR", 0x0E800, count: 128),
    .init("ETQS", 0x0EC00, count: 8, effect: .receiveConfiguration),
    .init("FDIRCTRL", 0x0EE00, effect: .flowDirectorControl),
    .init("FDIRSIPV6", 0x0EE0C, count: 3),
    .init("FDIRIPSA", 0x0EE18),
    .init("FDIRIPDA", 0x0EE1C),
    .init("FDIRPORT", 0x0EE20),
    .init("FDIRVLAN", 0x0EE24),
    .init("FDIRHASH", 0x0EE28),
    // The operation (1:0) is over as soon as it is asked for.
    .init("FDIRCMD", 0x0EE2C, writable: ~0x3),
    .init("FDIRFREE", 0x0EE38, .readOnly),
    .init("FDIRDIP4M", 0x0EE3C),
    .init("FDIRSIP4M", 0x0EE40),
    .init("FDIRTCPM", 0x0EE44),
    .init("FDIRUDPM", 0x0EE48),
    .init("FDIRLEN", 0x0EE4C, .readOnly),
    .init("FDIRUSTAT", 0x0EE50, .clearOnRead),
    .init("FDIRFSTAT", 0x0EE54, .clearOnRead),
    .init("FDIRMATCH", 0x0EE58, .clearOnRead),
    .init("FDIRMISS", 0x0EE5C, .clearOnRead),
    .init("FDIRHKEY", 0x0EE68),
    .init("FDIRSKEY", 0x0EE6C),
    .init("FDIRM", 0x0EE70),
    .init("FDIRIP6M", 0x0EE74),
    .init("FDIRSCTPM", 0x0EE78),
  ]

  /// The receive queues: 0 to 63 in the first bank, 64 to 127 in the second (sections 2 and 5).
  static let receiveQueues: [RegisterBlock] = [(0x1000, 0), (0xD000, 64)].flatMap { base, first in
    func queue(
      _ name: String, _ offset: Int, reset: UInt32 = 0, writable: UInt32 = .max,
      effect: RegisterEffect = .receiveConfiguration
    ) -> RegisterBlock {
      .init(
        name, base + offset, count: 64, stride: 0x40, first: first, reset: reset,
        writable: writable, effect: effect)
    }
    return [
      queue("RDBAL", 0x00, writable: ~0x7F, effect: .receiveRing),
      queue("RDBAH", 0x04, effect: .receiveRing),
      queue("RDLEN", 0x08, writable: 0xF_FF80, effect: .receiveRing),
      queue("DCA_RXCTRL", 0x0C, reset: 0xA200, effect: .none),
      queue("RDH", 0x10, writable: 0xFFFF, effect: .receiveHead),
      queue("SRRCTL", 0x14, reset: 0x402),
      queue("RDT", 0x18, writable: 0xFFFF, effect: .receiveTail),
      // Linux writes bit 26 as it does in TXDCTL; it does not stay.
      queue("RXDCTL", 0x28, writable: ~(1 << 26), effect: .receiveQueueControl),
      queue("RSCCTL", 0x2C),
    ]
  }
}
