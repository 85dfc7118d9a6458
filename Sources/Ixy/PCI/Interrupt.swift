/// The kinds of interrupt that a PCI device has, with vfio's numbers.
public enum InterruptKind: Int, Sendable {
  /// A line, shared and level triggered.
  case intx = 0
  /// Message signalled, few vectors.
  case msi = 1
  /// Message signalled, many vectors.
  case msix = 2
}

/// A PCI device whose interrupts arrive as eventfds.
public protocol InterruptingDevice: PCIDevice {
  /// The number of vectors of this kind that the device has.
  func interruptCount(_ kind: InterruptKind) throws(DeviceError) -> Int
  /// Connects vectors 0, 1, ... to eventfds, all in one call; what was connected before is not any more.
  ///
  /// The descriptors stay the caller's. An empty array switches interrupts of this kind off.
  func setInterrupts(_ kind: InterruptKind, eventFDs: [Int32]) throws(DeviceError)
}
