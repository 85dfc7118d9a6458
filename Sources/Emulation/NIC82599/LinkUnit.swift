import Ixy

/// Link state, its registers, and the PHY behind MDIO (reference, section 7).
final class LinkUnit {
  private enum At {
    static let autoc = 0x042A0
    static let msrwd = 0x04260
  }

  /// LINKS: UP (30), speed 10 Gb/s (29:28), link status (7), which keeps a loss until it is read.
  private static let up: UInt32 = 1 << 30 | 3 << 28
  private static let latched: UInt32 = 1 << 7
  /// AUTOC: link mode select (15:13).
  private static let linkMode: UInt32 = 7 << 13

  private let wire: any Wire
  private let registers: RegisterFile
  private let interrupts: InterruptUnit
  private var phy: PHY?
  private let hasPHY: Bool
  /// AUTOC as after a reset.
  private let strap: UInt32

  private(set) var isUp = false
  private var sawLoss = true

  init(
    wire: any Wire, registers: RegisterFile, interrupts: InterruptUnit, phy: PHY?, strap: UInt32
  ) {
    (self.wire, self.registers, self.interrupts) = (wire, registers, interrupts)
    (self.phy, hasPHY, self.strap) = (phy, phy != nil, strap)
  }

  /// Looks at the wire; a change is an interrupt cause.
  func update() {
    let isUp = wire.isConnected && isModeRight
    guard isUp != self.isUp else { return }
    self.isUp = isUp
    if !isUp { sawLoss = true }
    phy?.linkChanged(isUp: isUp)
    interrupts.other(InterruptUnit.linkStatusChange)
  }

  /// With a PHY, forcing another link mode on the MAC separates the two.
  private var isModeRight: Bool {
    !hasPHY || (registers[At.autoc] ^ strap) & Self.linkMode == 0
  }

  /// The link goes down, without an interrupt, and comes up again with the next update.
  func reset() {
    isUp = false
    sawLoss = true
    phy?.reset()
  }

  /// LINKS; the loss that it tells of is forgotten.
  func readLinks() -> UInt32 {
    update()
    defer { sawLoss = !isUp }
    guard isUp else { return 0 }
    return Self.up | (sawLoss ? 0 : Self.latched)
  }

  // MARK: MDIO

  /// Bit 30 of MSCA was written 1: the access is over before software can look.
  func runMDIO(_ command: UInt32) {
    guard command & 1 << 30 != 0 else { return }
    // Start code 0 is clause 45, where the register comes in an address cycle; in clause 22 it is here.
    let isClause45 = command >> 28 & 3 == 0
    let port = Int(command >> 21 & 0x1F)
    let device = Int(command >> 16 & 0x1F)
    let data: UInt16?
    switch (isClause45, command >> 26 & 3) {
    case (true, 0):
      phy?.setAddress(port: port, device: device, UInt16(truncatingIfNeeded: command))
      return
    case (true, 1):
      phy?.write(port: port, device: device, UInt16(truncatingIfNeeded: registers[At.msrwd]))
      return
    case (true, let operation):
      data = phy?.read(port: port, device: device, thenIncrement: operation == 2)
    default: data = nil
    }
    // Nobody pulls the line down: all ones.
    registers[At.msrwd] = registers[At.msrwd] & 0xFFFF | UInt32(data ?? 0xFFFF) << 16
  }
}
