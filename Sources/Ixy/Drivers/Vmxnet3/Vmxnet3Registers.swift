/// Registers of a vmxnet3, in two BARs, each 8 bytes apart and 32 bits wide.
///
/// Facts are those on which DPDK's driver relies and which QEMU's device shows; there is no public datasheet.
enum Vmxnet3Register {
  // BAR 0, for the data path.

  /// IMR: 1 masks vector `n`, 0 lets it come, and what it held back at once.
  static func imr(_ n: Int) -> Register<UInt32> { Register(at: 8 * n) }
  /// TXPROD: the next descriptor that the driver will fill, of transmit queue `n`.
  static func txprod(_ n: Int) -> Register<UInt32> { Register(at: 0x600 + 8 * n) }
  /// RXPROD: the same of receive queue `n`, ring 1.
  static func rxprod(_ n: Int) -> Register<UInt32> { Register(at: 0x800 + 8 * n) }
  /// RXPROD2: the same of receive queue `n`, ring 2.
  static func rxprod2(_ n: Int) -> Register<UInt32> { Register(at: 0xA00 + 8 * n) }

  // BAR 1, for control.

  /// VRRS: the revisions that the device has, one bit each; the one that is chosen.
  static let vrrs = Register<UInt32>(at: 0x00)
  /// UVRS: the same for the layout of queues (UPT).
  static let uvrs = Register<UInt32>(at: 0x08)
  /// DSAL: where the shared area is, lower half; written before the upper.
  static let dsal = Register<UInt32>(at: 0x10)
  /// DSAH: where the shared area is, upper half.
  static let dsah = Register<UInt32>(at: 0x18)
  /// CMD: a command; reading gives the result of the last one.
  static let cmd = Register<Command>(at: 0x20)
  /// MACL: the first four bytes of the MAC address, the first lowest.
  static let macl = Register<UInt32>(at: 0x28)
  /// MACH: the last two bytes of the MAC address.
  static let mach = Register<UInt32>(at: 0x30)
  /// ICR: whether INTx is asserted; reading takes it back.
  static let icr = Register<UInt32>(at: 0x38)
  /// ECR: a 1 that is written takes an event back.
  static let ecr = Register<Events>(at: 0x40)

  /// A command, or its result.
  struct Command: RegisterValue, Equatable {
    var bits: UInt32
    static let activate = Self(bits: 0xCAFE_0000)
    static let quiesce = Self(bits: 0xCAFE_0001)
    static let reset = Self(bits: 0xCAFE_0002)
    static let updateReceiveMode = Self(bits: 0xCAFE_0003)
    static let updateAddressFilters = Self(bits: 0xCAFE_0004)
    static let updateVLANFilters = Self(bits: 0xCAFE_0005)
    /// Writes the device's counters into the queues' descriptions.
    static let getStatistics = Self(bits: 0xF00D_0001)
    static let getLink = Self(bits: 0xF00D_0002)
    /// The card's own address: its first four bytes, then the last two.
    static let getAddressLow = Self(bits: 0xF00D_0003)
    static let getAddressHigh = Self(bits: 0xF00D_0004)
  }

  /// Events: why the event interrupt came.
  struct Events: OptionSet, RegisterValue {
    let rawValue: UInt32
    /// LINK: the link went up or down.
    static let linkChange = Self(rawValue: 1 << 2)
  }

  /// The answer to `getLink`.
  struct LinkState: RegisterValue {
    var bits: UInt32
    var isUp: Bool { bits[0...0] == 1 }
    var megabitsPerSecond: Int { Int(bits[16...31]) }
  }
}

/// The shared area: what the driver tells the device, by offset.
enum Vmxnet3Shared {
  /// magic, and its value.
  static let magic = 0, magicValue: UInt32 = 0xBABE_FEE1
  /// driverInfo: version, guest (64 bits, Linux), and the revisions that the driver knows.
  static let driverVersion = 8, guest = 12, revision = 16, uptVersion = 20
  static let guestValue: UInt32 = 2 | 1 << 2
  /// uptFeatures, 64 bits: RSS in bit 1.
  static let features = 24, rssFeature: UInt64 = 1 << 1
  /// Where the queues' descriptions are, and their length.
  static let queuesAddress = 40, queuesLength = 52
  static let mtu = 56
  /// maxNumRxSG, 16 bits: the most buffers for one frame.
  static let maximumBuffers = 60
  /// numTxQueues and numRxQueues, a byte each.
  static let transmitQueues = 62, receiveQueues = 63
  /// intrConf: autoMask, numIntrs, eventIntrIdx and modLevels, a byte each; intrCtrl, 32 bits.
  static let autoMask = 80, vectors = 81, eventVector = 82, moderation = 83, interruptControl = 108
  /// rxFilterConf: rxMode, mfTableLen (16 bits, in bytes), mfTablePA, vfTable (128 words).
  static let receiveMode = 120, groupsLength = 124, groupsAddress = 128, vlans = 136
  /// rssConfDesc: version, length, address.
  static let rssVersion = 648, rssLength = 652, rssAddress = 656

  /// Which frames are received.
  struct ReceiveMode: OptionSet {
    let rawValue: UInt32
    static let unicast = Self(rawValue: 1)
    static let multicast = Self(rawValue: 2)
    static let broadcast = Self(rawValue: 4)
    static let promiscuous = Self(rawValue: 16)
  }
}

/// The description of one queue in memory, 256 bytes each: those of transmit queues, then of receive queues.
enum Vmxnet3Queue {
  static let size = 256
  /// ctrl.updateRxProd, a byte: the device wants to hear of new descriptors.
  static let wantsDoorbell = 0
  /// conf: where the rings are (transmit: ring, data, completions; receive: ring 1, ring 2, completions).
  static let rings = [16, 24, 32]
  /// conf: how many entries they have, in the same order.
  static let sizes = [56, 60, 64]
  /// conf.intrIdx, a byte.
  static let vector = 72
  /// stats: ten counters of 64 bits; with receive queues the ninth is pktsRxOutOfBuf.
  ///
  /// The last one, pktsRxError, would count again what a completion has marked as damaged.
  static let outOfBuffers = 88 + 64
  /// Bytes for each entry of the data ring, which is given and not used.
  static let dataEntry = 128
}

/// What rssConfDesc names: how frames are spread over receive queues, by offset.
enum Vmxnet3RSS {
  static let size = 176
  /// hashType, hashFunc, hashKeySize and indTableSize, 16 bits each.
  static let types = 0, function = 2, keyLength = 4, tableLength = 6
  /// What the device can hash: addresses of IPv4, with TCP's ports, and of IPv6, with TCP's ports.
  static let fields: ReceiveSideScaling.Fields = [.ipv4, .tcpIPv4, .ipv6, .tcpIPv6]
  /// Their bits in hashType.
  static func types(_ fields: ReceiveSideScaling.Fields) -> UInt16 {
    let bits: [(ReceiveSideScaling.Fields, UInt16)] = [
      (.ipv4, 1), (.tcpIPv4, 2), (.ipv6, 4), (.tcpIPv6, 8),
    ]
    return bits.reduce(0) { fields.contains($1.0) ? $0 | $1.1 : $0 }
  }
  static let toeplitz: UInt16 = 1
  /// hashKey and indTable: 40 and 128 bytes.
  static let key = 8, table = 48
}
