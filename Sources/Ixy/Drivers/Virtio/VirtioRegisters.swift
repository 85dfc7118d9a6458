// Numbers of the virtio specification (its sources at revision 15f488c, and 0.9.5 for legacy devices).

/// What a device offers, and what a driver accepts of it.
struct VirtioFeatures: OptionSet, Equatable {
  let rawValue: UInt64

  /// The longest payload of a frame is in the configuration.
  static let mtu = Self(rawValue: 1 << 3)
  /// The address is in the configuration.
  static let mac = Self(rawValue: 1 << 5)
  /// A frame may fill several receive buffers.
  static let mergeableBuffers = Self(rawValue: 1 << 15)
  /// The link's state is in the configuration.
  static let linkStatus = Self(rawValue: 1 << 16)
  static let controlQueue = Self(rawValue: 1 << 17)
  static let controlReceive = Self(rawValue: 1 << 18)
  static let controlVLAN = Self(rawValue: 1 << 19)
  static let multiqueue = Self(rawValue: 1 << 22)
  static let controlMAC = Self(rawValue: 1 << 23)
  /// Header and frame may share a descriptor: modern devices always allow it, legacy ones by this.
  static let anyLayout = Self(rawValue: 1 << 27)
  /// Each side says at which entry it wants to be told.
  static let eventIndex = Self(rawValue: 1 << 29)
  /// Not a legacy device.
  static let version1 = Self(rawValue: 1 << 32)
  /// Its DMA goes the way of any other device's: through an IOMMU where there is one.
  static let accessPlatform = Self(rawValue: 1 << 33)
  static let packedRing = Self(rawValue: 1 << 34)
  /// It wants memory barriers as a real card does.
  static let orderPlatform = Self(rawValue: 1 << 36)
  /// A single queue can be reset.
  static let ringReset = Self(rawValue: 1 << 40)
  /// The hash of a frame is in its header.
  static let hashReport = Self(rawValue: 1 << 57)
  /// The device spreads frames over the receive queues by a hash, as the driver says.
  static let rss = Self(rawValue: 1 << 60)
  static let speed = Self(rawValue: 1 << 63)
}

/// Device status: how far the driver has got, and whether the device can go on.
struct VirtioStatus: OptionSet, Equatable {
  let rawValue: UInt8

  static let acknowledge = Self(rawValue: 1)
  static let driver = Self(rawValue: 2)
  static let driverOK = Self(rawValue: 4)
  static let featuresOK = Self(rawValue: 8)
  /// The device is broken until the next reset.
  static let needsReset = Self(rawValue: 0x40)
  /// The driver has given up.
  static let failed = Self(rawValue: 0x80)
  /// An absent device reads as all ones.
  static let gone = Self(rawValue: 0xFF)
}

/// One field of a device's registers, little-endian: where it is, and how wide.
struct VirtioField {
  let offset: Int
  let width: Int

  init(_ offset: Int, _ width: Int) {
    self.offset = offset
    self.width = width
  }
}

/// The common configuration of a modern device.
enum VirtioCommon {
  static let deviceFeatureSelect = VirtioField(0x00, 4)
  static let deviceFeature = VirtioField(0x04, 4)
  static let driverFeatureSelect = VirtioField(0x08, 4)
  static let driverFeature = VirtioField(0x0C, 4)
  static let configVector = VirtioField(0x10, 2)
  static let numberOfQueues = VirtioField(0x12, 2)
  static let status = VirtioField(0x14, 1)
  static let configGeneration = VirtioField(0x15, 1)
  static let queueSelect = VirtioField(0x16, 2)
  static let queueSize = VirtioField(0x18, 2)
  static let queueVector = VirtioField(0x1A, 2)
  static let queueEnable = VirtioField(0x1C, 2)
  static let queueNotifyOffset = VirtioField(0x1E, 2)
  /// 64 bits, like the next two: each half is written alone.
  static let queueDescriptors = VirtioField(0x20, 4)
  static let queueDriver = VirtioField(0x28, 4)
  static let queueDevice = VirtioField(0x30, 4)
  /// Its end is the least length of the structure.
  static let size = 0x38
  /// Only where the structure is long enough, and the feature accepted.
  static let queueReset = VirtioField(0x3A, 2)
}

/// The registers of a legacy device, in its I/O BAR 0.
enum VirtioLegacy {
  static let deviceFeatures = VirtioField(0x00, 4)
  static let driverFeatures = VirtioField(0x04, 4)
  /// The ring's address, in pages of 4,096 bytes.
  static let queuePage = VirtioField(0x08, 4)
  static let queueSize = VirtioField(0x0C, 2)
  static let queueSelect = VirtioField(0x0E, 2)
  static let queueNotify = VirtioField(0x10, 2)
  static let status = VirtioField(0x12, 1)
  static let interruptStatus = VirtioField(0x13, 1)
  /// This and the next are there only while MSI-X is on, and move what follows.
  static let configVector = VirtioField(0x14, 2)
  static let queueVector = VirtioField(0x16, 2)
  static func configuration(hasMSIX: Bool) -> Int { hasMSIX ? 0x18 : 0x14 }
}

/// The configuration of a network device.
enum VirtioNetConfiguration {
  /// MAC address, byte by byte.
  static let mac = 0
  /// Bit 0: the link is up.
  static let status = VirtioField(6, 2)
  static let maximumPairs = VirtioField(8, 2)
  static let mtu = VirtioField(10, 2)
  /// Mbit/s; all ones is unknown.
  static let speed = VirtioField(12, 4)
  static let maximumKeySize = VirtioField(17, 1)
  static let maximumTable = VirtioField(18, 2)
  static let hashTypes = VirtioField(20, 4)
}
