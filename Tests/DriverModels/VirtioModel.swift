import Emulation
import Ixy

/// The device's side of a virtio network card, typed from the specification and not from the driver.
///
/// It does nothing by itself: tests take what the driver made available, use it in any order, and lie.
final class VirtioModel: DeviceModel {
  enum Kind { case legacy, transitional, modern }

  // Feature bits.
  static let mtu: UInt64 = 1 << 3, mac: UInt64 = 1 << 5, mergeable: UInt64 = 1 << 15
  static let status: UInt64 = 1 << 16, control: UInt64 = 1 << 17, controlReceive: UInt64 = 1 << 18
  static let controlVLAN: UInt64 = 1 << 19, multiqueue: UInt64 = 1 << 22
  static let controlMAC: UInt64 = 1 << 23, anyLayout: UInt64 = 1 << 27, events: UInt64 = 1 << 29
  static let version1: UInt64 = 1 << 32, platform: UInt64 = 1 << 33, packed: UInt64 = 1 << 34
  static let ringReset: UInt64 = 1 << 40, coalescing: UInt64 = 1 << 53
  static let hash: UInt64 = 1 << 57, rss: UInt64 = 1 << 60, speed: UInt64 = 1 << 63

  /// What QEMU's device offers, without offloads.
  static let usual =
    version1 | platform | mac | status | control | controlReceive | controlVLAN | controlMAC

  let name = "virtio model"
  let kind: Kind
  let dma = DMATable()
  var interrupts: (any InterruptSink)?
  var offered: UInt64
  var accepted: UInt64 = 0
  var deviceStatus: UInt8 = 0
  /// What the driver wrote to the status register, in order.
  var statuses: [UInt8] = []
  var queues: [ModelQueue]
  var maximumPairs: Int
  /// How often each queue was notified.
  var notifications: [Int]
  /// The network configuration; 24 bytes.
  var configuration: [UInt8]
  /// Changes while the driver reads, if it is to be odd.
  var generation: UInt8 = 0
  var generationStep: UInt8 = 0
  /// The answer to commands; nil never answers.
  var controlAnswer: UInt8? = 0
  /// The identifier with which commands are answered; nil is the right one.
  var controlIdentifier: UInt32?
  var commands: [[UInt8]] = []
  /// Whether FEATURES_OK sticks.
  var takesFeatures = true
  /// Whether a reset ends.
  var resets = true
  var resetsQueues = true
  var isUnplugged = false
  var interruptStatus: UInt8 = 0
  /// The vectors that the device has; it may refuse to use them.
  let vectors: Int
  var takesVectors = true
  var notifyMultiplier: UInt32 = 4
  private(set) var busMaster = false
  var config: [UInt8]
  private var featureSelect = (device: 0, driver: 0)
  private var queueSelect = 0
  var configVector: UInt16 = 0xFFFF

  init(
    _ kind: Kind = .modern, offering features: UInt64 = usual, queueSize: Int = 256, pairs: Int = 1,
    vectors: Int = 4
  ) {
    self.kind = kind
    self.vectors = vectors
    offered = kind == .legacy ? features & 0xFFFF_FFFF : features
    maximumPairs = pairs
    queues = (0..<(2 * pairs)).map { _ in ModelQueue(queueSize) }
    queues.append(ModelQueue(64))
    notifications = Array(repeating: 0, count: queues.count)
    configuration = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, UInt8(pairs), 0, 0xDC, 5]
    configuration += [0x10, 0x27, 0, 0, 1, 40, 128, 0, 0x3F, 0, 0, 0]
    config = Self.configSpace(kind, vectors: vectors)
  }

  // MARK: - Config space

  static func configSpace(_ kind: Kind, vectors: Int) -> [UInt8] {
    var space = [UInt8](repeating: 0, count: 256)
    let device: UInt16 = kind == .modern ? 0x1041 : 0x1000
    space.replaceSubrange(0..<4, with: [0xF4, 0x1A, UInt8(device & 0xFF), UInt8(device >> 8)])
    space[8] = kind == .modern ? 1 : 0
    space[11] = 2
    // BAR 0 of legacy devices is I/O ports; BAR 4 is 64 bits of memory.
    space[0x10] = kind == .modern ? 0 : 1
    space[0x20] = 0xC
    if kind == .legacy { return space }
    space[6] = 0x10
    space[0x34] = 0x40
    // Common, interrupt status, network, notification: type, offset, length.
    let structures: [(UInt8, UInt32, UInt32)] = [
      (1, 0, 0x1000), (3, 0x1000, 0x1000), (4, 0x2000, 0x1000), (2, 0x3000, 0x1000),
    ]
    for (i, (type, offset, length)) in structures.enumerated() {
      let at = 0x40 + 0x18 * i
      let next = i == 3 ? (vectors > 0 ? 0xA0 : 0) : at + 0x18
      let head = [9, UInt8(next), type == 2 ? 20 : 16, type, 4, 0, 0, 0]
      let tail = type == 2 ? bytes(UInt32(4)) : []
      let all = head + bytes(offset) + bytes(length) + tail
      space.replaceSubrange(at..<(at + all.count), with: all)
    }
    // MSI-X; its control word has the number of vectors less one.
    if vectors > 0 { space.replaceSubrange(0xA0..<0xA3, with: [0x11, 0, UInt8(vectors - 1)]) }
    return space
  }

  static func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
    (0..<(value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  var barSizes: [Int] { [kind == .modern ? 0 : 64, 0, 0, 0, kind == .legacy ? 0 : 0x4000, 0] }
  let configSize = 256
  var interruptCounts: (intx: Int, msi: Int, msix: Int) { (1, 0, vectors) }
  let sharedPages: SharedPages? = nil
  func unmaskedINTx() {}
  func takeSharedWrites() {}
  func step() -> Int { 0 }

  func readConfig(_ offset: Int, width: Int) -> UInt32 {
    if isUnplugged || offset + width > 256 { return .max >> UInt32(32 - 8 * width) }
    return (0..<width).reversed().reduce(0) { $0 << 8 | UInt32(config[offset + $1]) }
  }

  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {
    for i in 0..<width where offset + i < 256 {
      config[offset + i] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(i)))
    }
    busMaster = config[4] & 4 != 0
  }

  func reset() {
    accepted = 0
    deviceStatus = 0
    configVector = 0xFFFF
    for queue in queues { queue.reset() }
  }

  // MARK: - Registers

  private var queue: ModelQueue? {
    queueSelect < queues.count ? queues[queueSelect] : nil
  }

  func read(bar: Int, _ offset: Int, width: Int) -> UInt64 {
    if isUnplugged { return .max >> UInt64(64 - 8 * width) }
    switch (bar, offset) {
    case (0, 0x14...): return network(offset - 0x14, width)
    case (0, _): return legacyRead(offset)
    case (4, 0..<0x1000): return commonRead(offset)
    case (4, 0x1000):
      defer { interruptStatus = 0 }
      return UInt64(interruptStatus)
    case (4, 0x2000..<0x3000): return network(offset - 0x2000, width)
    default: return 0
    }
  }

  func write(_ value: UInt64, bar: Int, to offset: Int, width: Int) {
    if isUnplugged { return }
    switch (bar, offset) {
    case (0, 0x14...): configuration[offset - 0x14] = UInt8(value)
    case (0, _): legacyWrite(value, offset)
    case (4, 0..<0x1000): commonWrite(value, offset)
    case (4, 0x3000..<0x4000):
      precondition(width == 2, "a notification has 16 bits")
      precondition((offset - 0x3000) == Int(value) * Int(notifyMultiplier))
      notify(Int(value))
    default: break
    }
  }

  private func network(_ offset: Int, _ width: Int) -> UInt64 {
    generation &+= generationStep
    return (0..<width).reversed().reduce(0) { $0 << 8 | UInt64(configuration[offset + $1]) }
  }

  private func commonRead(_ offset: Int) -> UInt64 {
    switch offset {
    case 0x04: offered >> UInt64(32 * featureSelect.device) & 0xFFFF_FFFF
    case 0x10: UInt64(configVector)
    case 0x12: UInt64(queues.count)
    case 0x14: UInt64(deviceStatus)
    case 0x15: UInt64(generation)
    case 0x18: UInt64(queue?.size ?? 0)
    case 0x1A: UInt64(queue?.vector ?? 0xFFFF)
    case 0x1C: queue?.isEnabled == true ? 1 : 0
    case 0x1E: UInt64(queueSelect)
    case 0x3A: 0
    default: 0
    }
  }

  private func commonWrite(_ value: UInt64, _ offset: Int) {
    let low = { (old: UInt64) in old & ~0xFFFF_FFFF | value }
    let high = { (old: UInt64) in old & 0xFFFF_FFFF | value << 32 }
    switch offset {
    case 0x00: featureSelect.device = Int(value)
    case 0x08: featureSelect.driver = Int(value)
    case 0x0C:
      let shift = UInt64(32 * featureSelect.driver)
      accepted = accepted & ~(0xFFFF_FFFF << shift) | value << shift
    case 0x10: configVector = vector(value)
    case 0x14: setStatus(UInt8(value))
    case 0x16: queueSelect = Int(value)
    case 0x18: queue?.size = Int(value)
    case 0x1A: queue?.vector = vector(value)
    case 0x1C: queue?.isEnabled = value == 1
    case 0x20: queue.map { $0.descriptors = low($0.descriptors) }
    case 0x24: queue.map { $0.descriptors = high($0.descriptors) }
    case 0x28: queue.map { $0.driverArea = low($0.driverArea) }
    case 0x2C: queue.map { $0.driverArea = high($0.driverArea) }
    case 0x30: queue.map { $0.deviceArea = low($0.deviceArea) }
    case 0x34: queue.map { $0.deviceArea = high($0.deviceArea) }
    case 0x3A: if resetsQueues { queue?.reset() }
    default: break
    }
  }

  /// The vector that the device takes when it is offered one.
  private func vector(_ value: UInt64) -> UInt16 {
    takesVectors && value < UInt64(vectors) ? UInt16(value) : 0xFFFF
  }

  private func legacyRead(_ offset: Int) -> UInt64 {
    switch offset {
    case 0x00: return offered & 0xFFFF_FFFF
    case 0x0C: return UInt64(queue?.size ?? 0)
    case 0x12: return UInt64(deviceStatus)
    case 0x13:
      defer { interruptStatus = 0 }
      return UInt64(interruptStatus)
    default: return 0
    }
  }

  private func legacyWrite(_ value: UInt64, _ offset: Int) {
    switch offset {
    case 0x04: accepted = value
    case 0x08:
      guard let queue else { return }
      queue.isEnabled = value != 0
      queue.descriptors = value * 4096
      queue.driverArea = queue.descriptors + UInt64(16 * queue.size)
      let end = queue.driverArea + UInt64(6 + 2 * queue.size)
      queue.deviceArea = (end + 4095) / 4096 * 4096
    case 0x0E: queueSelect = Int(value)
    case 0x10: notify(Int(value))
    case 0x12: setStatus(UInt8(value))
    default: break
    }
  }

  private func setStatus(_ value: UInt8) {
    statuses.append(value)
    if value == 0 {
      if resets { reset() }
      return
    }
    deviceStatus = takesFeatures ? value : value & ~8
  }

  private func notify(_ index: Int) {
    notifications[index] += 1
    let isControl = index == (accepted & Self.multiqueue != 0 ? 2 * maximumPairs : 2)
    if isControl && accepted & Self.control != 0 { answerCommand(queues[index]) }
  }
}

extension VirtioModel {
  /// Interrupts, by a message where MSI-X is on, else by the line where the driver lets it be used.
  private func signal(_ vector: UInt16, cause: UInt8) {
    if config[0xA0] == 0x11, config[0xA3] & 0x80 != 0 {
      if vector != 0xFFFF { interrupts?.signal(.msix, vector: Int(vector)) }
      return
    }
    interruptStatus |= cause
    if config[5] & 4 == 0 { interrupts?.signal(.intx, vector: 0) }
  }

  /// Tells the driver of one more used buffer, if it wants to know.
  func signalUsed(_ queue: ModelQueue) {
    let isWanted: Bool
    if isPacked {
      let flags: UInt16 = load(queue.driverArea + 2)
      precondition(flags < 2, "the driver wants an event without having agreed on it")
      isWanted = flags == 0
    } else if accepted & Self.events != 0 {
      isWanted = queue.used &- 1 == load(queue.driverArea + 4 + 2 * UInt64(queue.size))
    } else {
      isWanted = load(queue.driverArea, as: UInt16.self) & 1 == 0
    }
    if isWanted { signal(queue.vector, cause: 1) }
  }

  /// Pulls the cable, or plugs it in.
  func setLink(_ up: Bool) {
    configuration[6] = up ? 1 : 0
    generation &+= 1
    signal(configVector, cause: 2)
  }

  var isPacked: Bool { accepted & Self.packed != 0 }
  /// The bytes before each frame.
  var headerSize: Int {
    if accepted & Self.hash != 0 { return 20 }
    return accepted & (Self.version1 | Self.mergeable) != 0 ? 12 : 10
  }

  func load<T: FixedWidthInteger>(_ iova: UInt64, as type: T.Type = T.self) -> T {
    var value: T = 0
    precondition(unsafe dma.read(iova, into: &value, count: MemoryLayout<T>.size))
    return T(littleEndian: value)
  }

  func store(_ value: some FixedWidthInteger, to iova: UInt64) {
    store(Self.bytes(value), to: iova)
  }

  func store(_ bytes: [UInt8], to iova: UInt64) {
    precondition(unsafe dma.write(iova, from: bytes, count: bytes.count))
  }

  func bytes(_ iova: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { load(iova + UInt64($0)) }
  }

  /// Takes a command from the control queue, and answers it.
  func answerCommand(_ queue: ModelQueue) {
    while let chain = take(queue) {
      let input = chain.parts.filter { !$0.isWritable }
      commands.append(input.flatMap { bytes($0.address, $0.length) })
      guard let answer = controlAnswer, let last = chain.parts.last, last.isWritable else { return }
      store(answer, to: last.address)
      let id = controlIdentifier ?? UInt32(chain.id)
      use(id: id, length: 1, in: queue, places: chain.parts.count)
    }
  }
}
