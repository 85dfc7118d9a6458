/// Link, pause frames and virtual functions (section 7).
extension RegisterTable {
  /// Link, MAC and wake-up (section 7).
  static let link: [RegisterBlock] = [
    .init("PCS1GCFIG", 0x04200),
    .init("PCS1GLCTL", 0x04208, reset: 0x0204_0000),
    .init("PCS1GLSTA", 0x0420C, .readOnly),
    .init("PCS1GANA", 0x04218, reset: 0x1A0),
    .init("PCS1GANLP", 0x0421C, .readOnly),
    .init("PCS1GANNP", 0x04220),
    .init("PCS1GANLPNP", 0x04224, .readOnly),
    .init("HLREG0", 0x04240, reset: 0x0801_2C0B, effect: .bothConfigurations),
    .init("HLREG1", 0x04244, .readOnly),
    .init("PAP", 0x04248, reset: 0xFFFF),
    .init("MSCA", 0x0425C, writable: ~(1 << 30), effect: .mdioCommand),
    .init("MSRWD", 0x04260, writable: 0xFFFF),
    .init("MAXFRS", 0x04268, reset: 1518 << 16, effect: .receiveConfiguration),
    .init("PCSS1", 0x04288, .readOnly),
    .init("PCSS2", 0x0428C, .readOnly),
    .init("XPCSS", 0x04290, .readOnly),
    .init("MFLCN", 0x04294, effect: .receiveConfiguration),
    .init("SERDESC", 0x04298),
    .init("MACS", 0x0429C),
    // LMS (15:13) is 3, 10G serial, as on an SFP+ card; AN_RESTART (12) clears itself.
    .init("AUTOC", 0x042A0, reset: 0xC19D_6284, writable: ~(1 << 12), effect: .autoc),
    .init("LINKS", 0x042A4, .readOnly, effect: .links),
    .init("AUTOC2", 0x042A8, reset: 0x2 << 16),
    .init("AUTOC3", 0x042AC),
    // The state of auto-negotiation (19:16) never reads 0: drivers wait for that (observed, 3.9).
    .init("ANLP1", 0x042B0, .readOnly, reset: 0x1_0000),
    .init("ANLP2", 0x042B4, .readOnly),
    .init("MMNGC", 0x042D0, .readOnly),
    .init("KRPCSFC", 0x042E0),
    .init("KRPCSS", 0x042E4, .readOnly),
    .init("FECS1", 0x042E8, .readOnly),
    .init("LINKS2", 0x04324, .readOnly),
    .init("WUC", 0x05800),
    .init("WUFC", 0x05808),
    .init("WUS", 0x05810, .writeOneToClear),
  ]

  /// Pause frames: stored, and without effect (section 7).
  static let flowControl: [RegisterBlock] = [
    // Not in the reference, but in Linux's register test, which wants all bits back.
    .init("PFCTOP", 0x03008),
    .init("FCTTV", 0x03200, count: 4),
    // Linux's register test writes and expects bit 4 as well.
    .init("FCRTL", 0x03220, count: 8, writable: 0x8007_FFF0),
    .init("FCRTH", 0x03260, count: 8, writable: 0x8007_FFF0),
    .init("FCRTV", 0x032A0),
    .init("FCCFG", 0x03D00),
  ]

  /// Virtual functions: stored, and without effect, as the card has none (sections 6 and 7).
  static let virtualization: [RegisterBlock] = [
    .init("PFMAILBOX", 0x04B00, count: 64),
    .init("VT_CTL", 0x051B0, effect: .receiveConfiguration),
    .init("VFRE", 0x051E0, count: 2),
    .init("VMVIR", 0x08000, count: 64),
    .init("VFTE", 0x08110, count: 2),
    .init("PFVFSPOOF", 0x08200, count: 8),
    .init("PFDTXGSWC", 0x08220),
    .init("VMOLR", 0x0F000, count: 64, effect: .receiveConfiguration),
    .init("VLVF", 0x0F100, count: 64),
    .init("VLVFB", 0x0F200, count: 128),
    .init("UTA", 0x0F400, count: 128, effect: .receiveConfiguration),
    .init("PFMBMEM", 0x13000, count: 1024),
  ]
}
