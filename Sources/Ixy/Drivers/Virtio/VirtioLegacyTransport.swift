private typealias Legacy = VirtioLegacy

/// The registers of a legacy device (version 0.9.5): I/O ports at fixed places in BAR 0.
final class VirtioLegacyTransport: VirtioTransport {
  private let pci: any PCIDevice
  private let bar: BAR

  let isModern = false

  init(_ pci: any PCIDevice) throws(DeviceError) {
    self.pci = pci
    try pci.enablePorts()
    bar = try pci.registers(0)
    // The registers, and a configuration with the address and the link's status.
    guard bar.size >= Legacy.configuration(hasMSIX: true) + 8 else {
      throw .refused(
        "Open \(pci.name) as a legacy virtio device", found: "its BAR 0 has \(bar.size) bytes",
        advice: "It is no virtio network card, or a broken one.")
    }
  }

  private func read(_ field: VirtioField) -> UInt64 { bar.read(field.offset, width: field.width) }

  private func write(_ value: some BinaryInteger, to field: VirtioField) {
    bar.write(UInt64(truncatingIfNeeded: value), to: field.offset, width: field.width)
  }

  var status: VirtioStatus {
    get { VirtioStatus(rawValue: UInt8(truncatingIfNeeded: read(Legacy.status))) }
    set { write(newValue.rawValue, to: Legacy.status) }
  }

  var offered: VirtioFeatures {
    VirtioFeatures(rawValue: read(Legacy.deviceFeatures) & 0xFFFF_FFFF)
  }

  func accept(_ features: VirtioFeatures) { write(features.rawValue, to: Legacy.driverFeatures) }

  func queueSize(_ index: Int) -> Int {
    write(index, to: Legacy.queueSelect)
    return Int(truncatingIfNeeded: read(Legacy.queueSize) & 0xFFFF)
  }

  func start(_ index: Int, _ ring: VirtioRingMemory) throws(DeviceError) -> VirtioDoorbell {
    write(index, to: Legacy.queueSelect)
    let page = ring.descriptors / 4096
    guard page <= UInt32.max else {
      throw .refused(
        "Start a ring of \(pci.name)", found: "its memory is above 16 TiB",
        advice: "A legacy device cannot reach it; use a modern one.")
    }
    write(page, to: Legacy.queuePage)
    return VirtioDoorbell(bar, Legacy.queueNotify.offset, queue: index)
  }

  /// A legacy device can only be reset as a whole.
  func reset(_ index: Int) -> Bool { false }

  /// The network configuration moves while MSI-X is on.
  private var base: Int {
    let control = (try? pci.capability(0x11)).flatMap { try? pci.readConfig($0 + 2, width: 2) }
    return Legacy.configuration(hasMSIX: (control ?? 0) & 0x8000 != 0)
  }

  func configuration(_ field: VirtioField) -> UInt64 {
    let offset = base + field.offset
    if offset + field.width > bar.size { return .max >> UInt64(64 - 8 * field.width) }
    return bar.read(offset, width: field.width)
  }

  func setConfiguration(_ byte: UInt8, at offset: Int) {
    bar.write(UInt64(byte), to: base + offset, width: 1)
  }

  let generation: UInt8 = 0

  func setVector(_ vector: UInt16, of queue: Int?) -> Bool {
    if let queue { write(queue, to: Legacy.queueSelect) }
    let field = queue == nil ? Legacy.configVector : Legacy.queueVector
    write(vector, to: field)
    return read(field) == UInt64(vector)
  }

  func takeInterruptStatus() -> UInt8 { UInt8(truncatingIfNeeded: read(Legacy.interruptStatus)) }
}
