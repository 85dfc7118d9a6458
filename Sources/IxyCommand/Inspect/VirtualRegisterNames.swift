import Ixy

/// The registers of vmxnet3 and virtio-net; typed from the references.
extension RegisterName {
  // MARK: - vmxnet3

  /// BAR 0.
  static let vmxnet3Data: [RegisterName] = [
    .init(0x000, "IMR", "Interrupt Mask", "0 MASKED", count: 25, stride: 8),
    .init(0x600, "TXPROD", "Transmit Producer", count: 8, stride: 8),
    .init(0x800, "RXPROD", "Receive Producer, ring 1", count: 16, stride: 8),
    .init(0xA00, "RXPROD2", "Receive Producer, ring 2", count: 16, stride: 8),
  ]

  /// BAR 1.
  static let vmxnet3Control: [RegisterName] = [
    .init(0x00, "VRRS", "Revision Report and Selection"),
    .init(0x08, "UVRS", "UPT Version Report and Selection"),
    .init(0x10, "DSAL", "Driver Shared Address Low"),
    .init(0x18, "DSAH", "Driver Shared Address High"),
    .init(0x20, "CMD", "Command, and the result of the last"),
    .init(0x28, "MACL", "MAC Address Low"),
    .init(0x30, "MACH", "MAC Address High", "15:0 MACH"),
    .init(0x38, "ICR", "Interrupt Cause", "0 ASSERTED", changesWhenRead: true),
    .init(0x40, "ECR", "Event Cause", "0 RQERR, 1 TQERR, 2 LINK, 3 DIC, 4 DEBUG"),
  ]

  // MARK: - virtio

  private static let deviceStatus =
    "0 ACKNOWLEDGE, 1 DRIVER, 2 DRIVER_OK, 3 FEATURES_OK, 6 NEEDS_RESET, 7 FAILED"

  /// The common configuration of a modern device.
  private static let virtioCommon: [RegisterName] = [
    .init(0x00, "device_feature_select", "Which 32 features device_feature shows"),
    .init(0x04, "device_feature", "Features that the device offers"),
    .init(0x08, "driver_feature_select", "Which 32 features driver_feature sets"),
    .init(0x0C, "driver_feature", "Features that the driver accepts"),
    .init(0x10, "config_msix_vector", "Vector for changes of the configuration", width: 2),
    .init(0x12, "num_queues", "Queues that the device has", width: 2),
    .init(0x14, "device_status", "How far the driver has got", deviceStatus, width: 1),
    .init(0x15, "config_generation", "Changes with the configuration", width: 1),
    .init(0x16, "queue_select", "The queue that the next fields are about", width: 2),
    .init(0x18, "queue_size", "Entries of its ring", width: 2),
    .init(0x1A, "queue_msix_vector", "Its vector", width: 2),
    .init(0x1C, "queue_enable", "Whether it works", "0 ENABLED", width: 2),
    .init(0x1E, "queue_notify_off", "Where it is notified", width: 2),
    .init(0x20, "queue_desc_low", "Its descriptors' address"),
    .init(0x24, "queue_desc_high", "Its descriptors' address"),
    .init(0x28, "queue_driver_low", "The driver area's address"),
    .init(0x2C, "queue_driver_high", "The driver area's address"),
    .init(0x30, "queue_device_low", "The device area's address"),
    .init(0x34, "queue_device_high", "The device area's address"),
    .init(0x3A, "queue_reset", "Resets the queue", "0 RESET", width: 2),
  ]

  private static let virtioInterruptStatus = RegisterName(
    0, "isr_status", "What an interrupt was for", "0 QUEUE, 1 CONFIG", width: 1,
    changesWhenRead: true)

  /// The configuration of a network device; what comes after `mtu` is there with some features only.
  private static let virtioNetwork: [RegisterName] = [
    .init(0, "mac", "MAC address", count: 6, stride: 1, width: 1),
    .init(6, "status", "Network status", "0 LINK_UP, 1 ANNOUNCE", width: 2),
    .init(8, "max_virtqueue_pairs", "The most queue pairs", width: 2),
    .init(10, "mtu", "The longest payload of a frame", width: 2),
    .init(12, "speed", "Mbit/s; all ones is unknown"),
    .init(16, "duplex", "1 is full", width: 1),
    .init(17, "rss_max_key_size", "Bytes of the longest key", width: 1),
    .init(18, "rss_max_indirection_table_length", "Entries of the longest table", width: 2),
    .init(20, "supported_hash_types", "What can be hashed"),
  ]

  /// The registers of a legacy device, before its network configuration.
  private static let virtioLegacy: [RegisterName] = [
    .init(0x00, "device_features", "Features that the device offers"),
    .init(0x04, "driver_features", "Features that the driver accepts"),
    .init(0x08, "queue_address", "The ring's address, in pages"),
    .init(0x0C, "queue_size", "Entries of the ring", width: 2),
    .init(0x0E, "queue_select", "The queue that these fields are about", width: 2),
    .init(0x10, "queue_notify", "Tells the device of new entries", width: 2),
    .init(0x12, "device_status", "How far the driver has got", deviceStatus, width: 1),
    .init(
      0x13, "isr_status", "What an interrupt was for", "0 QUEUE, 1 CONFIG", width: 1,
      changesWhenRead: true),
  ]

  /// The structures of a modern device, by its capabilities; or the ports of a legacy one in BAR 0.
  static func virtio(_ bus: any PCIDevice) throws(DeviceError) -> [RegisterMap.Block] {
    var blocks: [RegisterMap.Block] = []
    for capability in try bus.capabilities() where capability.id == 0x09 {
      let place = capability.offset
      let kind = try bus.readConfig(place + 3, width: 1)
      let bar = Int(try bus.readConfig(place + 4, width: 1))
      let base = Int(try bus.readConfig(place + 8, width: 4))
      let length = Int(try bus.readConfig(place + 12, width: 4))
      guard bar <= 5 else { continue }
      let names: [RegisterName]
      switch kind {
      case 1: names = virtioCommon
      case 2:
        let multiplier = Int(try bus.readConfig(place + 16, width: 4))
        names = [notification(multiplier, length)]
      case 3: names = [virtioInterruptStatus]
      case 4: names = virtioNetwork
      default: continue
      }
      // As far as the device has them.
      let there = names.filter { $0.offset + $0.width <= length }
      blocks.append(RegisterMap.Block(bar: bar, base: base, names: there))
    }
    if !blocks.isEmpty { return blocks }
    // Without MSI-X, which neither info nor trace switch on.
    return [
      RegisterMap.Block(names: virtioLegacy),
      RegisterMap.Block(base: 0x14, names: Array(virtioNetwork.prefix(4))),
    ]
  }

  /// Where queues are notified: at one address, or each at its own.
  private static func notification(_ multiplier: Int, _ length: Int) -> RegisterName {
    let count = multiplier > 0 ? max(1, min(64, length / multiplier)) : 1
    return RegisterName(
      0, "queue_notify", "Tells the device of new entries", count: count,
      stride: max(2, multiplier),
      width: 2, changesWhenRead: true)
  }
}
