import Glibc

private typealias Common = VirtioCommon

/// The registers of a modern or transitional device: structures in its BARs, found by PCI capabilities.
final class VirtioModernTransport: VirtioTransport {
  /// A structure within a BAR.
  private struct Window {
    let bar: BAR
    let offset: Int
    let length: Int

    func read(_ field: VirtioField) -> UInt64 {
      guard field.offset + field.width <= length else { return .max >> (64 - 8 * field.width) }
      return bar.read(offset + field.offset, width: field.width)
    }

    func write(_ value: some BinaryInteger, to field: VirtioField) {
      guard field.offset + field.width <= length else { return }
      bar.write(UInt64(truncatingIfNeeded: value), to: offset + field.offset, width: field.width)
    }
  }

  private let device: String
  private let common: Window
  private let notify: Window
  /// The distance between the notification addresses of two queues.
  private let notifyMultiplier: Int
  private let interruptStatus: Window?
  private let network: Window?

  let isModern = true

  /// Finds the structures of a device; nil when it has none, as legacy devices do.
  init?(_ pci: any PCIDevice) throws(DeviceError) {
    var windows: [UInt8: Window] = [:]
    var bars: [Int: BAR] = [:]
    var multiplier = 0
    for capability in try pci.capabilities() where capability.id == 0x09 {
      let kind = UInt8(truncatingIfNeeded: try pci.readConfig(capability.offset + 3, width: 1))
      // The first that is usable counts; kinds that we do not know are for others.
      guard 1...4 ~= kind, windows[kind] == nil,
        let window = try Self.window(pci, at: capability.offset, kind, &bars)
      else { continue }
      windows[kind] = window
      if kind == 2 { multiplier = Int(try pci.readConfig(capability.offset + 16, width: 4)) }
    }
    guard let common = windows[1], let notify = windows[2] else { return nil }
    device = pci.name
    self.common = common
    self.notify = notify
    notifyMultiplier = multiplier
    interruptStatus = windows[3]
    network = windows[4]
  }

  /// What a capability describes; nil when it is too short, or lies outside its BAR.
  private static func window(
    _ pci: any PCIDevice, at capability: Int, _ kind: UInt8, _ bars: inout [Int: BAR]
  ) throws(DeviceError) -> Window? {
    let size = Int(try pci.readConfig(capability + 2, width: 1))
    guard size >= (kind == 2 ? 20 : 16), capability + size <= 256 else { return nil }
    let index = Int(try pci.readConfig(capability + 4, width: 1))
    let offset = Int(try pci.readConfig(capability + 8, width: 4))
    let length = Int(try pci.readConfig(capability + 12, width: 4))
    // Common, notification, interrupt status, and a configuration that has an address at least.
    let (least, alignment) = [(Common.size, 4), (2, 2), (1, 1), (6, 4)][Int(kind) - 1]
    guard 0...5 ~= index, length >= least, offset % alignment == 0 else { return nil }
    guard let bar = bars[index] ?? (try? pci.registers(index)), offset + length <= bar.size
    else { return nil }
    bars[index] = bar
    return Window(bar: bar, offset: offset, length: length)
  }

  var status: VirtioStatus {
    get { VirtioStatus(rawValue: UInt8(truncatingIfNeeded: common.read(Common.status))) }
    set { common.write(newValue.rawValue, to: Common.status) }
  }

  var offered: VirtioFeatures {
    var bits: UInt64 = 0
    for half in 0..<2 {
      common.write(half, to: Common.deviceFeatureSelect)
      bits |= common.read(Common.deviceFeature) << UInt64(32 * half)
    }
    return VirtioFeatures(rawValue: bits)
  }

  func accept(_ features: VirtioFeatures) {
    for half in 0..<2 {
      common.write(half, to: Common.driverFeatureSelect)
      common.write(features.rawValue >> UInt64(32 * half) & 0xFFFF_FFFF, to: Common.driverFeature)
    }
  }

  private func select(_ queue: Int) { common.write(queue, to: Common.queueSelect) }

  func queueSize(_ index: Int) -> Int {
    guard index < common.read(Common.numberOfQueues) else { return 0 }
    select(index)
    return Int(common.read(Common.queueSize))
  }

  func start(_ index: Int, _ ring: VirtioRingMemory) throws(DeviceError) -> VirtioDoorbell {
    select(index)
    common.write(ring.entries, to: Common.queueSize)
    for (field, address) in [
      (Common.queueDescriptors, ring.descriptors), (Common.queueDriver, ring.driverArea),
      (Common.queueDevice, ring.deviceArea),
    ] {
      common.write(address & 0xFFFF_FFFF, to: field)
      common.write(address >> 32, to: VirtioField(field.offset + 4, 4))
    }
    let offset = Int(common.read(Common.queueNotifyOffset)) * notifyMultiplier
    guard offset + 2 <= notify.length, (notify.offset + offset) % 2 == 0 else {
      throw .misbehaved(device: device, "it wants queue \(index) notified outside its registers")
    }
    common.write(1, to: Common.queueEnable)
    return VirtioDoorbell(notify.bar, notify.offset + offset, queue: index)
  }

  func reset(_ index: Int) -> Bool {
    select(index)
    common.write(1, to: Common.queueReset)
    // The device sets it while the reset goes on; afterwards the queue is disabled.
    let done: Void? = try? waitForVirtio("a queue's reset", of: device) {
      common.read(Common.queueReset) == 0 && common.read(Common.queueEnable) == 0
    }
    return done != nil
  }

  func configuration(_ field: VirtioField) -> UInt64 {
    network?.read(field) ?? .max >> UInt64(64 - 8 * field.width)
  }

  func setConfiguration(_ byte: UInt8, at offset: Int) {}

  var generation: UInt8 { UInt8(truncatingIfNeeded: common.read(Common.configGeneration)) }

  func setVector(_ vector: UInt16, of queue: Int?) -> Bool {
    if let queue { select(queue) }
    let field = queue == nil ? Common.configVector : Common.queueVector
    common.write(vector, to: field)
    return common.read(field) == UInt64(vector)
  }

  func takeInterruptStatus() -> UInt8 {
    UInt8(truncatingIfNeeded: interruptStatus?.read(VirtioField(0, 1)) ?? 0)
  }
}
