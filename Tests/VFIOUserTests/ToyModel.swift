import CIxy
import Emulation
import Glibc
import Ixy
import Testing

/// A small PCI device: a few registers, a copy engine, interrupts, a doorbell in a shared page.
///
/// It insists on what `DeviceModel` promises to models: accesses inside a region, naturally aligned.
final class ToyModel: DeviceModel {
  /// Registers of BAR 0.
  ///
  /// The second page is shared.
  enum Register {
    static let identity = 0x00
    static let scratch = 0x08
    /// The number of writes; cleared by a read.
    static let events = 0x10
    static let source = 0x20
    static let target = 0x28
    static let length = 0x30
    /// A write copies `length` bytes, then signals the vector that was written.
    static let go = 0x34
    /// The level of INTx: 1 raises it, 0 lowers it.
    static let level = 0x38
    static let doorbell = 0x1000
    /// What the doorbell said when it was looked at last.
    static let taken = 0x1004
  }

  let name = "toy"
  let barSizes = [0x2000, 0, 0x20, 0, 0x1000, 0]
  let configSize: Int
  let interruptCounts = (intx: 1, msi: 4, msix: 20)
  let dma = DMATable()
  weak var interrupts: (any InterruptSink)?
  let sharedPages: SharedPages?

  var registers = [UInt8](repeating: 0, count: 0x2000)
  var config: [UInt8]
  var events: UInt32 = 0
  var resets = 0
  /// The mappings at the last reset.
  var mappingsAtReset = 0
  /// What happened, in order.
  var log: [String] = []
  /// Microseconds that a write takes.
  var writeTime: UInt32 = 0
  /// Whether the kernel has memory for new pages.
  var hasMemory = true
  /// Whether the cause of INTx is there.
  var level = false
  private let file: FileDescriptor
  private let pages: UnsafeMutableRawPointer

  init(configSize: Int = 4096) throws {
    self.configSize = configSize
    config = []
    let number = ixy_memfd("toy", IXY_MEMFD_CLOEXEC)
    file = FileDescriptor(owning: number)
    try #require(ftruncate(number, 0x2000) == 0)
    pages = try #require(mmap(nil, 0x2000, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0))
    sharedPages = SharedPages(file: number, base: pages, ranges: [0x1000..<0x2000])
    powerOn()
  }

  deinit { munmap(pages, 0x2000) }

  private func powerOn() {
    registers = [UInt8](repeating: 0, count: 0x2000)
    registers.replaceSubrange(0..<4, with: [0x78, 0x56, 0x34, 0x12])
    memset(pages, 0, 0x2000)
    config = [UInt8](repeating: 0, count: configSize)
    // Ids, status with a capability list, class: network card. Then MSI at 0x50, MSI-X at 0x70
    // with its table and pending bits in BAR 4.
    config.replaceSubrange(0..<12, with: [0x86, 0x80, 0xAB, 0x15, 0, 0, 0x10, 0, 1, 0, 0, 2])
    config[0x34] = 0x50
    config[0x3D] = 1
    config.replaceSubrange(0x50..<0x54, with: [0x05, 0x70, 0x84, 0])
    config.replaceSubrange(0x70..<0x7C, with: [0x11, 0, 19, 0, 4, 0, 0, 0, 4, 8, 0, 0])
  }

  func readConfig(_ offset: Int, width: Int) -> UInt32 {
    precondition(offset % width == 0 && offset + width <= configSize && width <= 4)
    return (0..<width).reversed().reduce(0) { $0 << 8 | UInt32(config[offset + $1]) }
  }

  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {
    precondition(offset % width == 0 && offset + width <= configSize && width <= 4)
    for byte in 0..<width {
      config[offset + byte] = UInt8(truncatingIfNeeded: value >> UInt32(8 * byte))
    }
  }

  func read(bar: Int, _ offset: Int, width: Int) -> UInt64 {
    precondition(offset % width == 0 && offset + width <= barSizes[bar] && width <= 8)
    if bar == 0, offset == Register.events {
      defer { events = 0 }
      return UInt64(events)
    }
    if bar == 0, offset == Register.doorbell { return UInt64(doorbell) }
    return (0..<width).reversed().reduce(0) { $0 << 8 | UInt64(registers[offset + $1]) }
  }

  func write(_ value: UInt64, bar: Int, to offset: Int, width: Int) {
    precondition(offset % width == 0 && offset + width <= barSizes[bar] && width <= 8)
    if writeTime > 0 { usleep(writeTime) }
    if log.count < 100_000 { log.append("write \(bar) \(offset) \(value)") }
    if bar == 0, offset == Register.doorbell {
      ixy_store32(pages + offset, UInt32(truncatingIfNeeded: value))
    }
    for byte in 0..<width {
      registers[offset + byte] = UInt8(truncatingIfNeeded: value >> UInt64(8 * byte))
    }
    events &+= 1
    if bar == 0, offset == Register.level { setLevel(value != 0) }
    if bar == 0, offset == Register.go { copy(signal: Int(truncatingIfNeeded: value)) }
  }

  private func copy(signal vector: Int) {
    let length = Int(read(bar: 0, Register.length, width: 4)) & 0xFFFF
    var data = [UInt8](repeating: 0, count: length)
    let source = read(bar: 0, Register.source, width: 8)
    let target = read(bar: 0, Register.target, width: 8)
    let isCopied = data.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return true }
      return dma.read(source, into: base, count: length)
        && dma.write(target, from: base, count: length)
    }
    if isCopied { interrupts?.signal(.msix, vector: vector) }
  }

  /// Raises the level of INTx, or lowers it.
  func setLevel(_ isHigh: Bool) {
    level = isHigh
    // Status, bit 3: a guest's vfio-pci looks there whether the interrupt is this device's.
    config[6] = isHigh ? config[6] | 8 : config[6] & ~8
    if isHigh { interrupts?.signal(.intx, vector: 0) }
  }

  func unmaskedINTx() { if level { interrupts?.signal(.intx, vector: 0) } }

  func renewSharedPages() -> Bool {
    reset()
    return hasMemory
  }

  func reset() {
    resets += 1
    mappingsAtReset = dma.count
    level = false
    events = 0
    powerOn()
  }

  private var doorbell: UInt32 { ixy_load32(pages + Register.doorbell) }

  func takeSharedWrites() {
    let value = doorbell
    if value == ixy_load32(pages + Register.taken) { return }
    ixy_store32(pages + Register.taken, value)
    log.append("doorbell \(value)")
  }

  func step() -> Int {
    let count = log.count
    takeSharedWrites()
    return log.count - count
  }
}
