import Ixy

/// A model and its driver in one thread: every register access is a call, and nothing moves by itself.
///
/// For unit tests: they call `step()` on the model when frames shall move.
public final class InProcessDevice: PCIDevice {
  /// The emulated card.
  public let model: any DeviceModel

  /// Plugs a model in.
  public init(_ model: any DeviceModel) { self.model = model }

  /// The model's name.
  public var name: String { model.name }
  /// A BAR whose every access is a call of the model.
  public func bar(_ index: Int) throws(DeviceError) -> BAR {
    guard model.barSizes.indices.contains(index), model.barSizes[index] > 0 else {
      throw .refused("Map BAR \(index) of \(name)", found: "the device has none", advice: "")
    }
    return ForwardedBAR(ModelAccess(model, bar: index), size: model.barSizes[index])
  }

  /// Reads the model's config space.
  public func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    model.readConfig(offset, width: width)
  }

  /// Writes the model's config space.
  public func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    model.writeConfig(value, to: offset, width: width)
  }

  /// Puts the domain's memory into the model's DMA table.
  public func attach(to domain: DMADomain) throws(DeviceError) { try domain.attach(model.dma) }
}

/// The registers of one BAR of a model.
private final class ModelAccess: RegisterAccess {
  private let model: any DeviceModel
  private let bar: Int

  init(_ model: any DeviceModel, bar: Int) {
    self.model = model
    self.bar = bar
  }

  func read(_ offset: Int, width: Int) -> UInt64 { model.read(bar: bar, offset, width: width) }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    model.write(value, bar: bar, to: offset, width: width)
  }
}
