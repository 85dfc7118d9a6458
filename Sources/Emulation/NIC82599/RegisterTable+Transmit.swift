/// Transmission, with rates and the security block on its way (sections 6 and 7).
extension RegisterTable {
  /// What concerns all transmit queues (section 6).
  static let transmit: [RegisterBlock] = [
    .init("RTTDCS", 0x04900, reset: 0x00C0_0000, effect: .transmitConfiguration),
    .init("TXPBTHRESH", 0x04950, count: 8),
    .init("TXPBTHRESH", 0x04950, reset: 0x96),
    .init("DMATXCTL", 0x04A80, reset: 0x8100_0004, effect: .transmitConfiguration),
    // DATASHEET-UNSEEN: the reset values clear PSH and FIN in all segments but the last, and CWR in that alone.
    .init("DTXTCPFLGL", 0x04A88, reset: 0x0FF6_0FF6, effect: .transmitConfiguration),
    .init("DTXTCPFLGH", 0x04A8C, reset: 0x0F7F, effect: .transmitConfiguration),
    .init("DTXMXSZRQ", 0x08100, reset: 0x10),
    .init("MTQC", 0x08120, effect: .transmitConfiguration),
    .init("TQSM", 0x08600, count: 32, effect: .transmitConfiguration),
    .init("TXPBSIZE", 0x0CC00, count: 8, reset: 0xA0 << 10, writable: 0xF_FC00),
    .init("TFCS", 0x0CE00, .readOnly),
  ]

  /// The 128 transmit queues (section 6).
  static let transmitQueues: [RegisterBlock] = {
    func queue(
      _ name: String, _ offset: Int, reset: UInt32 = 0, writable: UInt32 = .max,
      effect: RegisterEffect = .transmitConfiguration
    ) -> RegisterBlock {
      .init(
        name, 0x6000 + offset, count: 128, stride: 0x40, reset: reset, writable: writable,
        effect: effect)
    }
    return [
      queue("TDBAL", 0x00, writable: ~0x7F, effect: .transmitRing),
      queue("TDBAH", 0x04, effect: .transmitRing),
      queue("TDLEN", 0x08, writable: 0xF_FF80, effect: .transmitRing),
      queue("DCA_TXCTRL", 0x0C, reset: 0x2A00, effect: .none),
      queue("TDH", 0x10, writable: 0xFFFF, effect: .transmitHead),
      queue("TDT", 0x18, writable: 0xFFFF, effect: .transmitTail),
      // SWFLSH (26) clears itself.
      queue("TXDCTL", 0x28, writable: 0x027F_7F7F, effect: .transmitQueueControl),
      queue("TDWBAL", 0x38),
      queue("TDWBAH", 0x3C),
    ]
  }()

  /// Data center bridging and transmit rates: stored, and without effect (sections 6 and 7).
  static let dataCenter: [RegisterBlock] = [
    .init("RTRPT4C", 0x02140, count: 8),
    .init("RTRPT4S", 0x02160, count: 8, .readOnly),
    .init("RTRPCS", 0x02430),
    .init("RTRUP2TC", 0x03020),
    .init("RTTDQSEL", 0x04904),
    .init("RTTDT1C", 0x04908),
    .init("RTTDT2C", 0x04910, count: 8),
    .init("RTTDT2S", 0x04930, count: 8, .readOnly),
    .init("RTTBCNRC", 0x04984),
    .init("RTTBCNRD", 0x0498C),
    .init("RTTUP2TC", 0x0C800),
    .init("RTTPCS", 0x0CD00),
    .init("RTTPT2C", 0x0CD20, count: 8),
    .init("RTTPT2S", 0x0CD40, count: 8, .readOnly),
  ]

  /// The security block (section 7; observed, 2.11 and 3.3).
  static let security: [RegisterBlock] = [
    .init("SECTXCTRL", 0x08800),
    // Ready (0), and without IPsec (1): Linux then leaves the engine's tables alone.
    .init("SECTXSTAT", 0x08804, .readOnly, reset: 0x3),
    .init("SECTXBUFFAF", 0x08808),
    .init("SECTXMINIFG", 0x08810),
    .init("IPSTXIDX", 0x08900),
    .init("IPSTXDATA", 0x08904, count: 5),
    .init("SECRXCTRL", 0x08D00, reset: 0x1),
    .init("SECRXSTAT", 0x08D04, .readOnly, reset: 0x3),
    .init("IPSRXIDX", 0x08E00),
    .init("IPSRXDATA", 0x08E04, count: 12),
  ]
}
