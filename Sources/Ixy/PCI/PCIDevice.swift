/// One PCI device that is ours: its registers, its config space and its way to our memory.
///
/// A driver cannot tell sysfs, VFIO, a vfio-user socket and an emulated card apart.
public protocol PCIDevice: AnyObject {
  /// How messages name the card: its PCI address, or the text that the user gave.
  var name: String { get }
  /// Maps or forwards the registers of BAR 0 to 5.
  ///
  /// - Throws: When there is no such BAR, or the kernel refuses.
  func bar(_ index: Int) throws(DeviceError) -> BAR
  /// Reads 1, 2 or 4 bytes of config space, little endian.
  ///
  /// - Throws: When the kernel refuses, or the server is gone; a card that is gone reads as all ones.
  func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32
  /// Writes 1, 2 or 4 bytes of config space.
  ///
  /// - Throws: As for reading.
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError)
  /// Gives the device access to the memory of a domain, once, before memory is made there.
  ///
  /// - Throws: When the domain's addresses are not for this device, or the kernel refuses.
  func attach(to domain: DMADomain) throws(DeviceError)
}
