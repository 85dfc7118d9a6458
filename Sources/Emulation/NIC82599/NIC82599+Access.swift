import Ixy

/// Reads and writes of the BARs.
extension NIC82599 {
  private static let registerBAR = 0
  private static let windowBAR = 2
  private static let vectorBAR = 4

  /// Reads 1, 2, 4 or 8 bytes of a BAR; 0 where there is nothing.
  public func read(bar: Int, _ offset: Int, width: Int) -> UInt64 {
    guard isInside(bar, offset, width) else { return 0 }
    let low = readWord(bar, offset & ~3)
    if width == 8 { return UInt64(low) | UInt64(readWord(bar, (offset & ~3) + 4)) << 32 }
    let mask = UInt64.max >> UInt64(64 - 8 * width)
    return UInt64(low) >> UInt64(8 * (offset & 3)) & mask
  }

  /// Writes 1, 2, 4 or 8 bytes of a BAR; nothing happens where there is nothing.
  public func write(_ value: UInt64, bar: Int, to offset: Int, width: Int) {
    guard isInside(bar, offset, width) else { return }
    let place = offset & ~3
    switch width {
    case 8:
      // Linux writes two registers of the flow director with one access (observed, 2.1).
      writeWord(bar, place, UInt32(truncatingIfNeeded: value))
      writeWord(bar, place + 4, UInt32(truncatingIfNeeded: value >> 32))
    case 4: writeWord(bar, place, UInt32(truncatingIfNeeded: value))
    default:
      // The other bytes keep their value.
      let shift = UInt64(8 * (offset & 3))
      let mask = UInt32(truncatingIfNeeded: (UInt64.max >> UInt64(64 - 8 * width)) << shift)
      writeWord(
        bar, place,
        storedWord(bar, place) & ~mask | UInt32(truncatingIfNeeded: value << shift) & mask)
    }
  }

  private func isInside(_ bar: Int, _ offset: Int, _ width: Int) -> Bool {
    barSizes.indices.contains(bar) && [1, 2, 4, 8].contains(width) && offset >= 0
      && offset <= barSizes[bar] - width
  }

  private func readWord(_ bar: Int, _ offset: Int) -> UInt32 {
    switch bar {
    case Self.registerBAR: readRegister(offset)
    case Self.windowBAR:
      // IOADDR (0) holds the offset of the register that IODATA (4) is.
      offset == 0 ? window : offset == 4 ? readRegister(Int(window & ~3)) : 0
    case Self.vectorBAR: offset / 4 < vectorTable.count ? vectorTable[offset / 4] : 0
    default: 0
    }
  }

  /// What a word holds, without what reading it sets off.
  private func storedWord(_ bar: Int, _ offset: Int) -> UInt32 {
    switch (bar, offset) {
    case (Self.registerBAR, 0..<RegisterFile.size): registers[offset]
    case (Self.registerBAR, _): 0
    case (Self.windowBAR, 4): storedWord(Self.registerBAR, Int(window & ~3))
    default: readWord(bar, offset)
    }
  }

  private func writeWord(_ bar: Int, _ offset: Int, _ value: UInt32) {
    switch (bar, offset) {
    case (Self.registerBAR, _): writeRegister(value, at: offset)
    case (Self.windowBAR, 0): window = value
    case (Self.windowBAR, 4): writeRegister(value, at: Int(window & ~3))
    // The table (the first KiB) is only stored: masks and addresses are the host's business.
    case (Self.vectorBAR, 0..<1024): vectorTable[offset / 4] = value
    default: break
    }
  }

  // MARK: Registers

  /// Stores a value where it belongs, in its alias, and in what is known of the shared pages.
  func store(_ value: UInt32, at home: Int, twin: Int) {
    registers[home] = value
    if twin != home { registers[twin] = value }
    shared.latch(home, value)
  }

  /// Reads a register, with what that sets off.
  func readRegister(_ offset: Int) -> UInt32 {
    guard let (block, index, home, twin) = map.find(offset) else { return 0 }
    switch block.kind {
    case .command: return readCommand(block.effect, index)
    case .clearOnRead:
      statistics.flush()
      let value = registers[home]
      store(0, at: home, twin: twin)
      return value
    case .readOnly: return readLive(block.effect, stored: registers[home])
    case .readWrite, .writeOneToClear: return registers[home]
    }
  }

  /// Writes a register, with what that sets off.
  func writeRegister(_ value: UInt32, at offset: Int) {
    guard let (block, index, home, twin) = map.find(offset) else { return }
    switch block.kind {
    case .readOnly, .clearOnRead: return
    case .command: break
    case .writeOneToClear: store(registers[home] & ~value, at: home, twin: twin)
    case .readWrite:
      let old = registers[home]
      let new = old & ~block.writable | value & block.writable
      store(new, at: home, twin: twin)
      wasWritten(block.effect, index, home: home, old: old, new: new, raw: value)
      return
    }
    writeCommand(block.effect, index, value)
  }
}
