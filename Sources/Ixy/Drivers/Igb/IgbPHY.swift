import Glibc

private typealias Reg = IgbRegister

/// Registers of a copper PHY, as IEEE 802.3 clause 22 numbers them.
private enum PHYRegister {
  /// BMCR, Basic Mode Control.
  static let control = 0
}

extension IgbDevice {
  /// Brings the link up: the PHY negotiates anew after a reset, and the MAC follows what it finds.
  ///
  /// - Throws: When the PHY does not answer.
  func startLink() throws(DeviceError) {
    bar[Reg.ctrl].remove(.forced)
    bar[Reg.ctrl].insert(.linkUp)
    if bar[Reg.ctrlExt].linkMode != 0 { return startPCS() }
    try withPHY { () throws(DeviceError) in
      var control = try transferPHY(PHYRegister.control, writing: nil)
      // Not isolated, not powered down; autonegotiation on, and started again.
      control = control & ~(1 << 10 | 1 << 11) | 1 << 12 | 1 << 9
      _ = try transferPHY(PHYRegister.control, writing: control)
    }
  }

  /// Fibre, backplane and SGMII: the card's own coding sublayer negotiates.
  ///
  /// DATASHEET-UNSEEN: done as DPDK's driver does it; no emulator has such a card.
  private func startPCS() {
    bar[Reg.ctrlExt].bits &= ~Reg.ExtendedControl.cagePowerOff
    var control = bar[Reg.ctrl]
    if family == .i82576 { control.insert(.softwarePins) }
    var link = bar[Reg.pcsLctl]
    link.bits &= ~Reg.PCSLinkControl.forced
    let isSGMII = bar[Reg.ctrlExt].linkMode == 2
    if isSGMII {
      link.bits &= ~Reg.PCSLinkControl.timeout
    } else {
      control.formUnion([.forced, .gigabitFullDuplex])
      link.bits |= Reg.PCSLinkControl.gigabitFullDuplex
    }
    link.bits |= Reg.PCSLinkControl.negotiate
    bar[Reg.ctrl] = control
    bar[Reg.pcsCfg][3...3] = 1
    bar[Reg.pcsLctl] = link
  }

  /// One transfer over MDIO: the value read, or written.
  private func transferPHY(_ register: Int, writing data: UInt16?) throws(DeviceError) -> UInt16 {
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

  // MARK: - Firmware may want the PHY, too

  /// Runs `body` while neither firmware nor another driver uses the PHY of this port.
  private func withPHY(_ body: () throws(DeviceError) -> Void) throws(DeviceError) {
    // Software's marks for the PHYs of ports 0 to 3; firmware's are 16 bits higher.
    let mine: UInt32 = [1 << 1, 1 << 2, 1 << 5, 1 << 6][bar[Reg.status].port]
    try acquireMark(mine)
    defer {
      acquireSemaphore()
      bar[Reg.swFwSync] &= ~mine
      releaseSemaphore()
    }
    try body()
  }

  /// Sets our mark when neither it nor firmware's is set.
  ///
  /// One that stays set was left behind by a driver that died, and is taken over after a second.
  private func acquireMark(_ mine: UInt32) throws(DeviceError) {
    for attempt in 0..<200 {
      acquireSemaphore()
      defer { releaseSemaphore() }
      let marks = bar[Reg.swFwSync]
      if marks == .max { throw .gone(device: pci.name) }
      if marks & (mine | mine << 16) == 0 || attempt == 199 {
        bar[Reg.swFwSync] = marks | mine
        return
      }
      usleep(5_000)
    }
  }

  /// Takes the semaphore before the marks; after 50 ms it counts as left behind, and is taken over.
  private func acquireSemaphore() {
    // The read that finds SMBI clear has set it.
    for _ in 0..<50 {
      if bar[Reg.swsm][0...0] == 0 { break }
      usleep(1_000)
    }
    for _ in 0..<50 {
      bar[Reg.swsm][1...1] = 1
      if bar[Reg.swsm][1...1] == 1 { return }
      usleep(1_000)
    }
  }

  private func releaseSemaphore() { bar[Reg.swsm][0...1] = 0 }
}
