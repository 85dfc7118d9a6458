import CIxy
import Glibc

extension VFIODevice: InterruptingDevice {
  /// Asks how many vectors of a kind the card has.
  public func interruptCount(_ kind: InterruptKind) throws(DeviceError) -> Int {
    let info = try VFIOInfo(
      of: file.number, UInt(IXY_VFIO_DEVICE_GET_IRQ_INFO), size: 16, index: kind.rawValue,
      "Ask for the interrupts of \(name)")
    // As many as MSI-X can have; each is a descriptor of ours.
    return min(Int(info[12]), 2048)
  }

  /// Connects all vectors in one call; the kernel switches the card's capability on.
  public func setInterrupts(_ kind: InterruptKind, eventFDs: [Int32]) throws(DeviceError) {
    // One kind at a time, and an armed kind cannot grow.
    if let active = activeInterrupts {
      try setIRQs(active, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, count: 0)
      activeInterrupts = nil
    }
    if eventFDs.isEmpty { return }
    try setIRQs(
      kind, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, count: eventFDs.count, eventFDs
    )
    activeInterrupts = kind
  }

  /// Lets INTx signal again after one interrupt; the kernel has masked its line.
  public func unmaskINTx() throws(DeviceError) {
    try setIRQs(.intx, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, count: 1)
  }

  /// VFIO_DEVICE_SET_IRQS, from vector 0.
  private func setIRQs(
    _ kind: InterruptKind, _ flags: Int32, count: Int, _ files: [Int32] = []
  ) throws(DeviceError) {
    // argsz, flags, index, start, count, and a descriptor for each.
    var words = [UInt32](repeating: 0, count: 5) + files.map { UInt32(bitPattern: $0) }
    words[0] = UInt32(words.count * 4)
    words[1] = UInt32(flags)
    words[2] = UInt32(kind.rawValue)
    words[4] = UInt32(count)
    if unsafe ixy_ioctl(file.number, UInt(IXY_VFIO_DEVICE_SET_IRQS), &words) == 0 { return }
    throw .lastError(
      "Set \(count) interrupts of \(name)", advice: "Use fewer queues, or poll: --interrupts off")
  }
}
