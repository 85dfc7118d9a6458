import Emulation

@testable import Ixy

/// A card that notes what its driver writes.
final class LoggedDevice: PCIDevice {
  /// A write to a register.
  struct Write {
    var bar: Int
    var offset: Int
    var value: UInt64
    /// Whether the card could start DMA then.
    var isBusMaster: Bool
  }

  private let inner: InProcessDevice
  private(set) var writes: [Write] = []

  init(_ model: any DeviceModel) { inner = InProcessDevice(model) }

  var name: String { inner.name }
  func bar(_ index: Int) throws(DeviceError) -> BAR {
    ForwardedBAR(LoggedBAR(self, index), size: inner.model.barSizes[index])
  }
  func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    try inner.readConfig(offset, width: width)
  }
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    try inner.writeConfig(value, to: offset, width: width)
  }
  func attach(to domain: DMADomain) throws(DeviceError) { try inner.attach(to: domain) }

  private final class LoggedBAR: RegisterAccess {
    private let card: LoggedDevice
    private let index: Int

    init(_ card: LoggedDevice, _ index: Int) { (self.card, self.index) = (card, index) }

    func read(_ offset: Int, width: Int) -> UInt64 {
      card.inner.model.read(bar: index, offset, width: width)
    }

    func write(_ value: UInt64, to offset: Int, width: Int) {
      let model = card.inner.model
      let isBusMaster = model.readConfig(4, width: 2) & 0b100 != 0
      card.writes.append(
        Write(bar: index, offset: offset, value: value, isBusMaster: isBusMaster))
      model.write(value, bar: index, to: offset, width: width)
    }
  }
}
