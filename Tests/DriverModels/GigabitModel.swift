import Emulation
import Glibc
import Ixy

/// What the 82574 and the 82576 do, as far as their drivers' unit tests need it.
///
/// Its register map is typed from the reference and not from the drivers; `GigabitRings.swift` moves frames.
final class GigabitModel: DeviceModel {
  enum Kind { case e1000e, igb }

  let kind: Kind
  let dma = DMATable()
  var interrupts: (any InterruptSink)?
  let deviceID: UInt16
  var registers: [Int: UInt32] = [:]
  private var config: [UInt8] = []
  private var phy: [Int: UInt16] = [:]

  /// The cable: is there one, what came out of the card, what waits to go in.
  var isPlugged = true { didSet { if isPlugged != oldValue { changeLink() } } }
  var sent: [[UInt8]] = []
  var arriving: [[UInt8]] = []
  /// Frames that found no descriptor stay in the card; with this off they are lost.
  var hasRoom = true
  var interruptCounts: (intx: Int, msi: Int, msix: Int)
  /// A card that does not do what it is told: a bit that never comes.
  var stuck: Set<Int> = []
  /// Every register reads as all ones.
  var isGone = false
  /// Changes a received descriptor before the driver sees it.
  var lie: ((inout UInt64, inout UInt64) -> Void)?
  /// What the driver did against the rules.
  var violations: [String] = []
  /// Writes to the PHY: register and value.
  var phyWrites: [(Int, UInt16)] = []

  init(_ kind: Kind, deviceID: UInt16? = nil) {
    self.kind = kind
    interruptCounts = (1, 1, kind == .igb ? 10 : 5)
    self.deviceID = deviceID ?? (kind == .igb ? 0x10C9 : 0x10D3)
    reset()
  }

  var name: String { "model:\(kind)" }
  var barSize = 0x20000
  var barSizes: [Int] { [barSize, 0, 0, 0x4000, 0, 0] }
  var configSize: Int { 256 }
  var sharedPages: SharedPages? { nil }
  func unmaskedINTx() {}
  func takeSharedWrites() {}

  // MARK: - Config space

  var isBusMaster: Bool { config[4] & 0b100 != 0 }

  func readConfig(_ offset: Int, width: Int) -> UInt32 {
    (0..<width).reduce(0) { $0 | UInt32(config[offset + $1]) << UInt32(8 * $1) }
  }

  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {
    for i in 0..<width { config[offset + i] = UInt8(truncatingIfNeeded: value >> UInt32(8 * i)) }
  }

  func reset() {
    config = [UInt8](repeating: 0, count: 256)
    writeConfig(UInt32(deviceID) << 16 | 0x8086, to: 0, width: 4)
    config[11] = 0x02
    resetRegisters()
  }

  // MARK: - Registers

  subscript(offset: Int) -> UInt32 {
    get { registers[offset, default: 0] }
    set { registers[offset] = newValue }
  }

  private func resetRegisters() {
    let eitr = kind == .igb ? 0x1680..<0x16E4 : 0xE8..<0xFC
    registers = registers.filter { eitr.contains($0.key) }
    self[0x00000] = 0x0000_0009
    self[0x05400] = 0x1200_5452  // RAL0: 52:54:00:12:34:56
    self[0x05404] = 0x5634
    // What no reset clears is not zero.
    for i in 0..<128 { (self[0x5200 + 4 * i], self[0x5600 + 4 * i]) = (.max, .max) }
    // VET: QEMU's 82574 leaves it to the driver.
    self[0x38] = kind == .igb ? 0x8100 : 0
    phy = [0: 0x1140, 1: isPlugged ? 0x794D : 0x7949]
    if kind == .igb {
      self[0x0C028] = 1 << 25 | 1 << 16
      self[0x0E028] = 1 << 25
      self[0x05004] = 0x2600
    } else {
      (self[0x3840], self[0x3940]) = (0x403, 0x403)
      self[0x08] = isPlugged ? 0x82 : 0x80
    }
  }

  func read(bar: Int, _ offset: Int, width: Int) -> UInt64 {
    if isGone || bar != 0 { return .max }
    let value = self[offset]
    switch offset {
    case 0x00008:
      // STATUS: GIO master enable unless CTRL disables it.
      return UInt64(value | (self[0] & 4 != 0 && !stuck.contains(8) ? 0 : 1 << 19))
    case 0x00010: return UInt64(value | 1 << 9)
    case 0x000C0:
      self[offset] = 0
    case 0x04000..<0x04100:
      self[offset] = 0
    case 0x05B50: self[offset] = value | 1  // SWSM: reading takes SMBI
    case _ where kind == .igb && offset & ~0x3C0 == 0x0C030: self[offset] = 0  // RQDPC
    default: break
    }
    return UInt64(value)
  }

  func write(_ value: UInt64, bar: Int, to offset: Int, width: Int) {
    if isGone || bar != 0 { return }
    let bits = UInt32(truncatingIfNeeded: value)
    switch offset {
    case 0x00000: writeControl(bits)
    case 0x00020: transferPHY(bits)
    case 0x000C0: self[offset] &= ~bits
    case 0x000C8: raise(bits)
    case 0x000D0:
      let old = self[0xC0] & self[0xD0]
      self[0xD0] |= bits
      signal(self[0xC0] & self[0xD0] & ~old)
    case 0x000D8: self[0xD0] &= ~bits
    case 0x01520 where kind == .igb: raiseVectors(bits)
    case 0x01524 where kind == .igb:
      self[0x1524] |= bits
      raiseVectors(0)
    case 0x01528 where kind == .igb: self[0x1524] &= ~bits
    case 0x01580 where kind == .igb: self[0x1580] &= ~bits
    case _ where isTail(offset):
      // A ring that is off takes no descriptors.
      let isOn = kind == .e1000e || self[offset + 0x10] & 1 << 25 != 0
      self[offset] = isOn ? bits & 0xFFFF : 0
    case _ where kind == .igb && (0xC000..<0xE400).contains(offset) && offset & 0x3F == 0x28:
      self[offset] = stuck.contains(offset) ? bits & ~(1 << 25) : bits
    default: self[offset] = bits
    }
  }

  private func isTail(_ offset: Int) -> Bool {
    kind == .igb
      ? (0xC000..<0xE400).contains(offset) && offset & 0x3F == 0x18
      : [0x2818, 0x2918, 0x3818, 0x3918].contains(offset)
  }

  private func writeControl(_ bits: UInt32) {
    self[0] = bits
    if bits & 1 << 26 != 0 {
      resetRegisters()
      if stuck.contains(0) { self[0] = 1 << 26 }
    }
  }

  // MARK: - PHY and link

  /// The driver must own the PHY: by a mark in SW_FW_SYNC, or by EXTCNF_CTRL.
  private var ownsPHY: Bool {
    kind == .igb ? self[0x5B5C] & 1 << 1 != 0 : self[0xF00] & 1 << 5 != 0
  }

  private func transferPHY(_ bits: UInt32) {
    if !ownsPHY { violations.append("MDIC without owning the PHY") }
    let register = Int(bits >> 16 & 0x1F)
    if bits >> 21 & 0x1F != 1 {
      self[0x20] = bits | 1 << 28 | 1 << 30
    } else if bits >> 26 & 0b11 == 0b10 {
      self[0x20] = bits & ~0xFFFF | UInt32(phy[register, default: 0]) | 1 << 28
    } else {
      let data = UInt16(truncatingIfNeeded: bits)
      phyWrites.append((register, data))
      phy[register] = data & ~0x8200
      self[0x20] = bits | 1 << 28
      if register == 0, data & 0x1200 == 0x1200, isPlugged { setLink(true) }
    }
    if stuck.contains(0x20) { self[0x20] &= ~(1 << 28) }
  }

  private func changeLink() { setLink(isPlugged) }

  private func setLink(_ isUp: Bool) {
    self[0x08] = isUp ? 0x82 : 0x80  // LU and 1,000 Mbit/s
    raise(1 << 2)
  }

  var isReceiving: Bool { isBusMaster && self[0x100] & 2 != 0 && self[0x08] & 2 != 0 }
  var isTransmitting: Bool { isBusMaster && self[0x400] & 2 != 0 }

  // MARK: - Interrupts

  /// Sets causes in ICR.
  func raise(_ causes: UInt32) {
    let old = self[0xC0] & self[0xD0]
    self[0xC0] |= causes
    signal(self[0xC0] & self[0xD0] & ~old)
  }

  /// Tells the driver of causes that are new and not masked.
  private func signal(_ new: UInt32) {
    if new == 0 { return }
    if kind == .igb, self[0x1514] & 1 << 4 != 0 {
      let vector = self[0x1740] >> 8 & 0xFF
      if vector & 0x80 != 0 { raiseVectors(1 << (vector & 0x1F)) }
    } else if kind == .e1000e, self[0x18] & 1 << 31 != 0 {
      raiseE1000E(new)
    } else {
      interrupts?.signal(interruptCounts.msi > 0 ? .msi : .intx, vector: 0)
    }
  }

  /// 82576 with MSI-X: bits of EICR are vectors; EIAC clears and EIAM masks with the message.
  func raiseVectors(_ vectors: UInt32) {
    self[0x1580] |= vectors
    for vector in 0..<10 where self[0x1580] & self[0x1524] & 1 << UInt32(vector) != 0 {
      let bit = UInt32(1) << UInt32(vector)
      if self[0x152C] & bit != 0 { self[0x1580] &= ~bit }
      if self[0x1530] & bit != 0 { self[0x1524] &= ~bit }
      interrupts?.signal(.msix, vector: vector)
    }
  }

  /// 82574 with MSI-X: IVAR's fields of four bits for the causes RXQ0, RXQ1, TXQ0, TXQ1 and OTHER.
  private func raiseE1000E(_ causes: UInt32) {
    for i in 0..<5 where causes & 1 << UInt32(20 + i) != 0 || (i == 4 && causes & 4 != 0) {
      let field = self[0xE4] >> UInt32(4 * i) & 0xF
      if field & 8 == 0 { continue }
      let cause: UInt32 = 1 << UInt32(20 + i)
      if self[0xDC] & cause != 0 { self[0xC0] &= ~cause }
      if self[0x18] & 1 << 24 != 0, self[0xDC] & cause != 0 { self[0xD0] &= ~(self[0xE0] & cause) }
      interrupts?.signal(.msix, vector: Int(field & 7))
    }
  }

  /// A frame was received on a queue.
  func received(on queue: Int) {
    if kind == .igb, self[0x1514] & 1 << 4 != 0 {
      // Byte 0 of IVAR[n % 8], or byte 2 from queue 8 on; the 82580 and its successors differ.
      let field =
        deviceID == 0x10C9
        ? self[0x1700 + 4 * (queue & 7)] >> UInt32((queue & 8) << 1)
        : self[0x1700 + 4 * (queue / 2)] >> UInt32(queue % 2 * 16)
      if field & 0x80 != 0 { raiseVectors(1 << (field & 0x1F)) }
    } else {
      raise(kind == .igb ? 1 << 7 : 1 << UInt32(20 + queue) | 1 << 7)
    }
  }
}
