import Ixy
import StandIns

/// Registers that read as they were written, and as an 82574 or 82576 that is ready.
private final class GigabitRegisters: RegisterAccess {
  private var values: [Int: UInt64] = [:]

  func read(_ offset: Int, width: Int) -> UInt64 {
    switch offset {
    case 0x00000: 0  // CTRL: no reset under way.
    case 0x00008: 0x82  // STATUS: a link.
    case 0x00010: 1 << 9  // EECD: the EEPROM is read.
    case 0x00020: 1 << 28 | 1 << 2  // MDIC: ready; as BMSR, a link.
    default: values[offset] ?? 0
    }
  }

  func write(_ value: UInt64, to offset: Int, width: Int) { values[offset] = value }
}

/// The 82574 and the 82576, each with one ring each way.
func measureGigabit(_ meter: inout Meter) throws {
  // Where the first ring of each kind is; its tail is 0x18 behind.
  for (name, id, rx, tx) in [
    ("e1000e", 0x10D3_8086, 0x2800, 0x3800), ("igb", 0x10C9_8086, 0xC000, 0xE000),
  ] as [(String, UInt32, Int, Int)] {
    let pci = StandInCard(
      id: id, size: 128 << 10, mapped: [rx..<rx + 0x100, tx..<tx + 0x100],
      registers: GigabitRegisters())
    try measure(&meter, name, pci) { card in
      card.pointee.rx = pci.memory.pointer(to: pci.register(rx))
      card.pointee.tx = pci.memory.pointer(to: pci.register(tx))
    } step: { card, frames in
      standin_gigabit_step(card, UInt32(rx + 0x18), UInt32(tx + 0x18), frames)
    }
  }
}
