/// The registers that the receive and transmit engines read and write (reference, sections 5 to 8).
///
/// Where a register has two addresses, this is the one where it is stored: that of the whole bank, or the one in
/// pages that drivers may map.
enum EngineRegister {
  static let hlreg0 = 0x04240
  static let maxfrs = 0x04268

  // Receive.
  static let rxctrl = 0x03000
  static let rxcsum = 0x05000
  static let fctrl = 0x05080
  static let vlnctrl = 0x05088
  static let mcstctrl = 0x05090
  static let mrqc = 0x0EC80
  static func mta(_ n: Int) -> Int { 0x05200 + 4 * n }
  static func ral(_ n: Int) -> Int { 0x0A200 + 8 * n }
  static func rah(_ n: Int) -> Int { 0x0A204 + 8 * n }
  static func vfta(_ n: Int) -> Int { 0x0A000 + 4 * n }
  static func reta(_ n: Int) -> Int { 0x0EB00 + 4 * n }
  static func rssrk(_ n: Int) -> Int { 0x0EB80 + 4 * n }
  static func ereta(_ n: Int) -> Int { 0x0EE80 + 4 * n }
  static func rqsmr(_ n: Int) -> Int { 0x02300 + 4 * n }

  // Transmit.
  static let dmatxctl = 0x04A80
  static let dtxtcpflgl = 0x04A88
  static let dtxtcpflgh = 0x04A8C
  static func tqsm(_ n: Int) -> Int { 0x08600 + 4 * n }

  /// The first register of receive queue `n`; the offsets within are those of `Bank`.
  static func receiveBank(_ n: Int) -> Int {
    n < 64 ? 0x01000 + 0x40 * n : 0x0D000 + 0x40 * (n - 64)
  }
  /// The first register of transmit queue `n`.
  static func transmitBank(_ n: Int) -> Int { 0x06000 + 0x40 * n }

  /// Where the registers of one queue are in its bank.
  enum Bank {
    static let base = 0x00
    static let baseHigh = 0x04
    static let length = 0x08
    static let head = 0x10
    static let srrctl = 0x14
    static let tail = 0x18
    static let control = 0x28
    static let headWriteBack = 0x38
    static let headWriteBackHigh = 0x3C
  }

  // Statistics; all are cleared by their reader.
  static func mpc(_ n: Int) -> Int { 0x03FA0 + 4 * n }
  static func rnbc(_ n: Int) -> Int { 0x03FC0 + 4 * n }
  static let prc64 = 0x0405C
  static let gprc = 0x04074
  static let bprc = 0x04078
  static let mprc = 0x0407C
  static let gptc = 0x04080
  static let gorcl = 0x04088
  static let gotcl = 0x04090
  static let ruc = 0x040A4
  static let roc = 0x040AC
  static let torl = 0x040C0
  static let tpr = 0x040D0
  static let tpt = 0x040D4
  static let ptc64 = 0x040D8
  static let mptc = 0x040F0
  static let bptc = 0x040F4
  static func qprc(_ n: Int) -> Int { 0x01030 + 0x40 * n }
  static func qbrcl(_ n: Int) -> Int { 0x01034 + 0x40 * n }
  static func qprdc(_ n: Int) -> Int { 0x01430 + 0x40 * n }
  static func qptc(_ n: Int) -> Int { 0x06030 + 0x40 * n }
  static func qbtcl(_ n: Int) -> Int { 0x08700 + 8 * n }
}

/// Bits of those registers.
enum EngineBit {
  static let queueEnable: UInt32 = 1 << 25
  static let vlanStrip: UInt32 = 1 << 30
  static let dropWhenEmpty: UInt32 = 1 << 28
  static let receiveEnable: UInt32 = 1 << 0
  static let transmitEnable: UInt32 = 1 << 0

  // HLREG0.
  static let transmitCRC: UInt32 = 1 << 0
  static let stripCRC: UInt32 = 1 << 1
  static let jumbo: UInt32 = 1 << 2
  static let padTransmitted: UInt32 = 1 << 10
  static let loopback: UInt32 = 1 << 15

  // FCTRL.
  static let storeBad: UInt32 = 1 << 1
  static let multicastPromiscuous: UInt32 = 1 << 8
  static let unicastPromiscuous: UInt32 = 1 << 9
  static let acceptBroadcast: UInt32 = 1 << 10

  // VLNCTRL.
  static let cfi: UInt32 = 1 << 28
  static let cfiFilter: UInt32 = 1 << 29
  static let vlanFilter: UInt32 = 1 << 30

  /// RAH: AV, address valid.
  static let addressValid: UInt32 = 1 << 31
  /// MCSTCTRL: MFE, multicast filter enable.
  static let multicastFilter: UInt32 = 1 << 2
  /// RXCSUM: IPPCSE, the checksum of fragments is reported.
  static let fragmentChecksum: UInt32 = 1 << 12
  /// RXCSUM: PCSD, the RSS hash is reported instead.
  static let reportHash: UInt32 = 1 << 13
  /// EICR: RX_MISS.
  static let missedCause: UInt32 = 1 << 17
}
