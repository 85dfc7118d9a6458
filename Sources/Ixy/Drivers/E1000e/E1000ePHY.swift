import Glibc

private typealias Reg = E1000eRegister

/// Registers of a copper PHY, as IEEE 802.3 clause 22 numbers them.
private enum PHYRegister {
  /// BMCR, Basic Mode Control.
  static let control = 0
  /// BMSR, Basic Mode Status: link in bit 2, which stays 0 after a loss until it is read.
  static let status = 1
}

extension E1000eDevice {
  /// Brings the link up: the MAC follows what the PHY finds, which negotiates anew unless it has a link.
  ///
  /// - Throws: When the PHY does not answer.
  func startLink() throws(DeviceError) {
    bar[Reg.ctrl].remove(.forced)
    bar[Reg.ctrl].insert(.linkUp)
    try ownPHY()
    defer { bar[Reg.extcnfCtrl][5...5] = 0 }
    _ = try transferPHY(PHYRegister.status)
    var control = try transferPHY(PHYRegister.control)
    let isUp = try transferPHY(PHYRegister.status) & 1 << 2 != 0
    if isUp && bar[Reg.status].isLinkUp { return }
    // Not isolated, not powered down; autonegotiation on, and started again.
    control = control & ~(1 << 10 | 1 << 11) | 1 << 12 | 1 << 9
    _ = try transferPHY(PHYRegister.control, writing: control)
  }

  /// Takes the PHY from firmware, which may use it, too; its owner clears the bit afterwards.
  func ownPHY() throws(DeviceError) {
    for _ in 0..<10 {
      bar[Reg.extcnfCtrl][5...5] = 1
      let control = bar[Reg.extcnfCtrl]
      if control == .max { throw .gone(device: pci.name) }
      if control[5...5] == 1 { return }
      usleep(2_000)
    }
    throw .timeout(
      device: pci.name, waitingFor: "its firmware to leave the PHY", limit: .milliseconds(20))
  }

  /// One transfer over MDIO: the value read, or written.
  private func transferPHY(_ register: Int, writing data: UInt16? = nil) throws(DeviceError)
    -> UInt16
  {
    bar[Reg.mdic] = .transfer(register, writing: data)
    try bar.wait(for: "its PHY", in: Reg.mdic, of: pci.name, limit: .milliseconds(100)) {
      $0.isReady
    }
    let answer = bar[Reg.mdic]
    if answer.isError {
      throw .misbehaved(device: pci.name, "its PHY did not answer for register \(register)")
    }
    return answer.data
  }
}
