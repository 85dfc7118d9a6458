import CIxy
import Ixy

/// One register access of a driver.
struct RegisterAccessRecord {
  let isWrite: Bool
  let bar: Int
  let offset: Int
  let value: UInt32
  /// How many bytes it has.
  let width: Int
  /// What the register held before, as far as the driver had seen it.
  let before: UInt32?
  /// The return addresses of the functions that led to it, the innermost first.
  let callers: [UInt]
  /// How often the same was read, one time after the other.
  var times = 1
}

/// A card whose register accesses are written down, in order.
final class TracingDevice: PortDevice {
  let inner: any PCIDevice
  /// Called with each access, after it was done.
  var onAccess: (RegisterAccessRecord) -> Void = { _ in }
  /// What the driver has seen of each register of each BAR.
  fileprivate var known: [[Int: UInt32]] = Array(repeating: [:], count: 6)
  private let memory = MemoryRecorder()

  init(_ inner: any PCIDevice) { self.inner = inner }

  var name: String { inner.name }

  func bar(_ index: Int) throws(DeviceError) -> BAR {
    let bar = try inner.bar(index)
    return ForwardedBAR(TracedRegisters(bar, index, self), size: bar.size)
  }

  func ports(_ index: Int) throws(DeviceError) -> BAR {
    let bar = try inner.registers(index)
    return ForwardedBAR(TracedRegisters(bar, index, self), size: bar.size)
  }

  func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    try inner.readConfig(offset, width: width)
  }

  func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    try inner.writeConfig(value, to: offset, width: width)
  }

  func attach(to domain: DMADomain) throws(DeviceError) {
    try inner.attach(to: domain)
    try domain.attach(memory)
  }

  /// What the card and its driver share at an address of the card's; empty where they share nothing.
  func read(_ iova: UInt64, count: Int) -> [UInt8] { memory.read(iova, count: count) }

  /// What the driver last wrote to a register of BAR 0, or read from it.
  func lastValue(_ offset: Int) -> UInt32 { known[0][offset] ?? 0 }
}

/// Registers that report what is done to them.
private final class TracedRegisters: RegisterAccess {
  private let bar: BAR
  private let index: Int
  private unowned let device: TracingDevice

  init(_ bar: BAR, _ index: Int, _ device: TracingDevice) {
    self.bar = bar
    self.index = index
    self.device = device
  }

  func read(_ offset: Int, width: Int) -> UInt64 {
    let value = bar.read(offset, width: width)
    report(offset, value, width, isWrite: false)
    return value
  }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    bar.write(value, to: offset, width: width)
    report(offset, value, width, isWrite: true)
  }

  private func report(_ offset: Int, _ value: UInt64, _ width: Int, isWrite: Bool) {
    // No driver of ours uses registers of 64 bits.
    let value = UInt32(truncatingIfNeeded: value)
    let record = RegisterAccessRecord(
      isWrite: isWrite, bar: index, offset: offset, value: value, width: width,
      before: device.known[index][offset], callers: callers())
    device.known[index][offset] = value
    device.onAccess(record)
  }

  private func callers() -> [UInt] {
    var frames: [UnsafeMutableRawPointer?] = unsafe Array(repeating: nil, count: 24)
    let count = unsafe backtrace(&frames, 24)
    return unsafe frames.prefix(Int(count)).map { UInt(bitPattern: $0) }
  }
}

/// Knows where the memory is that a card can reach.
private final class MemoryRecorder: DMAMapper {
  @safe private struct Block {
    let iova: UInt64
    let base: UnsafeMutableRawPointer
    let size: Int
  }
  private var blocks: [Block] = []

  /// All: it only looks.
  let usableIOVAs: [ClosedRange<UInt64>] = [0 ... .max]

  func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) { unsafe blocks.append(Block(iova: iova, base: base, size: size)) }

  func unmap(iova: UInt64, size: Int) { blocks.removeAll { $0.iova == iova } }

  func read(_ iova: UInt64, count: Int) -> [UInt8] {
    let block = blocks.first {
      iova >= $0.iova && iova - $0.iova + UInt64(count) <= UInt64($0.size)
    }
    guard let block else { return [] }
    // SAFETY: inside a mapping of the domain, which lives as long as the card is open.
    let start = unsafe block.base + Int(iova - block.iova)
    return unsafe Array(UnsafeRawBufferPointer(start: start, count: count))
  }
}
