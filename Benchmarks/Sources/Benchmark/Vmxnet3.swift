import Ixy
import StandIns

/// Registers of a vmxnet3 that does what it is told.
private final class Vmxnet3Registers: RegisterAccess {
  private var values: [Int: UInt64] = [:]

  /// Where driver and card share memory: DSAL and DSAH.
  var shared: UInt64 { (values[0x18] ?? 0) << 32 | (values[0x10] ?? 0) }

  /// VRRS and UVRS have revision 1; every command has succeeded.
  func read(_ offset: Int, width: Int) -> UInt64 { offset < 0x10 ? 1 : 0 }

  func write(_ value: UInt64, to offset: Int, width: Int) { values[offset] = value }
}

/// A vmxnet3 with one queue each way.
func measureVmxnet3(_ meter: inout Meter) throws {
  let registers = Vmxnet3Registers()
  // Both its BARs are the same one here; only the doorbells are memory.
  let pci = StandInCard(
    id: 0x07B0_15AD, size: 4096, mapped: [0x600..<0xC00], registers: registers)
  try measure(&meter, "vmxnet3", pci) { card in
    func address(_ at: UInt64) -> UInt64 {
      UnsafeRawPointer(pci.memory.pointer(to: at)).load(as: UInt64.self)
    }
    // The description of the transmit queue, then of the receive queue: rings in 16, completions in 32.
    let queues = address(registers.shared + 40)
    card.pointee.tx = pci.memory.pointer(to: address(queues + 16))
    card.pointee.tx_done = pci.memory.pointer(to: address(queues + 32))
    card.pointee.rx = pci.memory.pointer(to: address(queues + 256 + 16))
    card.pointee.rx_done = pci.memory.pointer(to: address(queues + 256 + 32))
  } step: { card, frames in
    standin_vmxnet3_step(card, frames)
  }
}
