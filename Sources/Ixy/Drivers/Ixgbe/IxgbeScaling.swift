private typealias Reg = IxgbeRegister

/// Registers of receive-side scaling.
extension IxgbeRegister {
  /// Receive Checksum Control: PCSD in bit 13 puts the RSS hash where a checksum would be.
  static let rxcsum = Register<UInt32>(at: 0x05000)
  /// Redirection Table, word `n` of 32: four entries, the first in the lowest bits.
  static func reta(_ n: Int) -> Register<UInt32> { Register(at: 0x0EB00 + 4 * n) }
  /// Extended Redirection Table of the X550, word `n` of 96: its entries 128 to 511.
  static func ereta(_ n: Int) -> Register<UInt32> { Register(at: 0x0EE80 + 4 * n) }
  /// RSS Random Key, word `n` of 10: the first byte in the lowest bits.
  static func rssrk(_ n: Int) -> Register<UInt32> { Register(at: 0x0EB80 + 4 * n) }
  /// Multiple Receive Queues Command: MRQE in bits 3:0, where 1 is RSS, and above them what is hashed.
  static let mrqc = Register<UInt32>(at: 0x0EC80)
}

extension IxgbeDevice: FrameSpreader {
  /// An entry of the table has 4 bits; 6 on the X550.
  public var spreadableQueues: Int { family == .x550 ? 64 : 16 }

  /// Sets key, fields and table, before the first receive queue is taken.
  public func setReceiveSideScaling(_ scaling: ReceiveSideScaling) throws(DeviceError) {
    // MRQC must not change while the receiver is on.
    try require(scaling, fields: .all, isReceiving: bar[Reg.rxctrl][0...0] == 1)
    let table = scaling.tableWords { UInt8($0) }
    for (i, word) in table.enumerated() { bar[Reg.reta(i)] = word }
    // It takes nine bits of the hash: the other three quarters are the same.
    if family == .x550 { for i in 0..<96 { bar[Reg.ereta(i)] = table[i % 32] } }
    for (i, word) in scaling.keyWords.enumerated() { bar[Reg.rssrk(i)] = word }
    bar[Reg.rxcsum][13...13] = 1
    bar[Reg.mrqc] = 1 | scaling.fields.rawValue
  }
}
