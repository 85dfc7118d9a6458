import Emulation
import Ixy

/// What a vmxnet3 does, as far as its driver's unit tests need it; other than QEMU's it has RSS.
///
/// Its layouts are typed from the reference and not from the driver; `Vmxnet3ModelRings.swift` moves frames.
final class Vmxnet3Model: DeviceModel {
  let name = "vmxnet3 model"
  let dma = DMATable()
  var interrupts: (any InterruptSink)?
  var interruptCounts = (intx: 1, msi: 1, msix: 25)
  private var config: [UInt8] = []

  /// The cable: is there one, what came out of the card, what waits to go in.
  var isPlugged = true { didSet { if isPlugged != oldValue { linkChanged() } } }
  var sent: [[UInt8]] = []
  var arriving: [[UInt8]] = []
  /// What the driver did against the rules.
  var violations: [String] = []
  /// All commands, in order.
  var commands: [UInt32] = []

  // A card that is odd.
  var isGone = false
  var revisions: UInt32 = 1
  var refusesActivation = false
  var refusesToBeQuiet = false
  var barSize = 4096
  var megabits: UInt32 = 10_000
  /// QEMU's card completes each frame, whether that was asked for or not.
  var completesEach = false
  var wantsReceiveDoorbell = false
  /// Change a completion before the driver sees it.
  var receiveLie: ((inout UInt64, inout UInt64) -> Void)?
  var transmitLie: ((inout UInt64) -> Void)?

  // State
  let ownAddress: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]
  var address: [UInt8]
  var isActive = false
  private var addressLow: UInt32 = 0
  private var sharedLow: UInt32 = 0
  private(set) var shared: UInt64 = 0
  private var lastCommand: UInt32 = 0
  var receivers: [Receiver] = []
  var transmitters: [Transmitter] = []
  var mode: UInt32 = 0
  var groups: [[UInt8]] = []
  var vlans: [UInt32] = []
  var rss: RSS?
  private var autoMasks = false
  private var eventVector = 0
  private var vectorCount = 0
  private var isSilent = false
  private var masked = [Bool](repeating: true, count: 25)
  private var pending = [Bool](repeating: false, count: 25)
  private var isLineAsserted = false
  /// Values of RXPROD, by queue.
  var receiveDoorbells: [Int: UInt32] = [:]

  struct RSS {
    var key: [UInt8]
    var table: [UInt8]
  }

  init() {
    address = ownAddress
    reset()
  }

  var barSizes: [Int] { [barSize, barSize, 0x2000, 0, 0, 0] }
  var configSize: Int { 256 }
  var sharedPages: SharedPages? { nil }
  func takeSharedWrites() {}

  // MARK: - Config space

  var isBusMaster: Bool { config[4] & 0b100 != 0 }

  func readConfig(_ offset: Int, width: Int) -> UInt32 {
    (0..<width).reduce(0) { $0 | UInt32(config[offset + $1]) << UInt32(8 * $1) }
  }

  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {
    for i in 0..<width { config[offset + i] = UInt8(truncatingIfNeeded: value >> UInt32(8 * i)) }
  }

  func reset() {
    config = [UInt8](repeating: 0, count: 256)
    writeConfig(0x07B0_15AD, to: 0, width: 4)
    config[11] = 0x02
    resetDevice()
  }

  private func resetDevice() {
    isActive = false
    masked = [Bool](repeating: true, count: 25)
    pending = [Bool](repeating: false, count: 25)
    shared = 0
  }

  // MARK: - Registers

  func read(bar: Int, _ offset: Int, width: Int) -> UInt64 {
    if isGone { return .max }
    if width != 4 || offset % 8 != 0 { violations.append("a read of \(width) bytes at \(offset)") }
    if bar == 0 { return offset < 8 * 25 && masked[offset / 8] ? 1 : 0 }
    return switch offset {
    case 0x00: UInt64(revisions)
    case 0x08: 1
    case 0x20: UInt64(result())
    case 0x28: UInt64(word(address[0..<4]))
    case 0x30: UInt64(word(address[4..<6]))
    case 0x38: readCause()
    default: 0
    }
  }

  private func word(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  /// ICR: reading takes the line back.
  private func readCause() -> UInt64 {
    defer { isLineAsserted = false }
    if isLineAsserted, autoMasks { masked[0] = true }
    return isLineAsserted ? 1 : 0
  }

  private func result() -> UInt32 {
    switch lastCommand {
    case 0xCAFE_0000: isActive ? 0 : 1
    case 0xCAFE_0001: refusesToBeQuiet ? 1 : 0
    case 0xCAFE_0002: 0
    case 0xF00D_0002: megabits << 16 | (isPlugged ? 1 : 0)
    case 0xF00D_0003: word(ownAddress[0..<4])
    case 0xF00D_0004: word(ownAddress[4..<6])
    default: noResult()
    }
  }

  private func noResult() -> UInt32 {
    violations.append("the result of command \(String(lastCommand, radix: 16))")
    return 0
  }

  func write(_ value: UInt64, bar: Int, to offset: Int, width: Int) {
    if isGone { return }
    let bits = UInt32(truncatingIfNeeded: value)
    if width != 4 || offset % 8 != 0 { violations.append("a write of \(width) bytes at \(offset)") }
    if bar == 0 { return writeData(bits, to: offset) }
    switch offset {
    case 0x00, 0x08: if bits != 1 { violations.append("revision \(bits) was chosen") }
    case 0x10:
      if bits == 0 { isActive = false }
      (sharedLow, shared) = (bits, 0)
    case 0x18: shared = UInt64(bits) << 32 | UInt64(sharedLow)
    case 0x20: command(bits)
    case 0x28: addressLow = bits
    case 0x30:
      let bytes = UInt64(bits) << 32 | UInt64(addressLow)
      address = (0..<6).map { UInt8(truncatingIfNeeded: bytes >> UInt64(8 * $0)) }
    case 0x40: if shared != 0 { write32(shared + 696, read32(shared + 696) & ~bits) }
    default: violations.append("a write to register \(offset)")
    }
  }

  private func writeData(_ bits: UInt32, to offset: Int) {
    // Like QEMU's: a card that is not active hears nothing.
    if !isActive { return }
    switch offset {
    case 0..<200:
      masked[offset / 8] = bits & 1 != 0
      fire(offset / 8)
    case 0x600..<0x640: transmitters[(offset - 0x600) / 8].producer = Int(bits)
    case 0x800..<0x840: receiveDoorbells[(offset - 0x800) / 8] = bits
    default: violations.append("a write to data register \(offset)")
    }
  }

  private func command(_ bits: UInt32) {
    lastCommand = bits
    commands.append(bits)
    switch bits {
    case 0xCAFE_0000: activate()
    case 0xCAFE_0001: if !refusesToBeQuiet { isActive = false }
    case 0xCAFE_0002: if !refusesToBeQuiet { resetDevice() }
    case 0xCAFE_0003...0xCAFE_0005: if isActive { readFilter() }
    case 0xF00D_0001: if isActive { writeStatistics() }
    case 0xF00D_0002...0xF00D_0004: break
    default: violations.append("command \(String(bits, radix: 16))")
    }
  }

  // MARK: - Activation

  private func activate() {
    guard !refusesActivation, isBusMaster, read32(shared) == 0xBABE_FEE1 else { return }
    guard 68...9000 ~= read32(shared + 56), read16(shared + 60) >= 1 else { return }
    if read32(shared + 16) != 1 || read32(shared + 20) != 1 { violations.append("revisions") }
    let (transmit, receive) = (Int(read8(shared + 62)), Int(read8(shared + 63)))
    let queues = read64(shared + 40)
    if Int(read32(shared + 52)) != 256 * (transmit + receive) || queues % 128 != 0 {
      violations.append("the queues' descriptions")
    }
    autoMasks = read8(shared + 80) != 0
    vectorCount = Int(read8(shared + 81))
    eventVector = Int(read8(shared + 82))
    isSilent = read32(shared + 108) & 1 != 0
    if eventVector >= vectorCount { violations.append("event vector \(eventVector)") }
    transmitters = (0..<transmit).map { Transmitter(at: queues + UInt64(256 * $0), self) }
    receivers = (0..<receive).map { Receiver(at: queues + UInt64(256 * (transmit + $0)), self) }
    for vector in transmitters.map(\.vector) + receivers.map(\.vector) where vector >= vectorCount {
      violations.append("vector \(vector)")
    }
    readFilter()
    readRSS()
    address = ownAddress
    isActive = true
    for receiver in receivers { write8(receiver.description, wantsReceiveDoorbell ? 1 : 0) }
  }

  private func readFilter() {
    mode = read32(shared + 120)
    let (bytes, table) = (Int(read16(shared + 124)), read64(shared + 128))
    groups = stride(from: 0, to: bytes, by: 6).map { start in
      (0..<6).map { read8(table + UInt64(start + $0)) }
    }
    vlans = (0..<128).map { read32(shared + 136 + UInt64(4 * $0)) }
  }

  private func readRSS() {
    rss = nil
    if read64(shared + 24) & 2 == 0 { return }
    let (version, length, start) = (
      read32(shared + 648), read32(shared + 652), read64(shared + 656)
    )
    if version != 1 || length != 176 { violations.append("RSS configuration") }
    // TCP and IP of both versions, Toeplitz.
    if read16(start) != 0xF || read16(start + 2) != 1 { violations.append("RSS types") }
    let (key, table) = (Int(read16(start + 4)), Int(read16(start + 6)))
    rss = RSS(
      key: (0..<key).map { read8(start + 8 + UInt64($0)) },
      table: (0..<table).map { read8(start + 48 + UInt64($0)) })
  }

  private func writeStatistics() {
    for receiver in receivers { write64(receiver.description + 88 + 64, receiver.outOfBuffers) }
  }

  // MARK: - Interrupts

  /// An event: it waits while its vector is masked.
  func trigger(_ vector: Int) {
    if isSilent { return }
    pending[vector] = true
    fire(vector)
  }

  private func fire(_ vector: Int) {
    guard pending[vector], !masked[vector] else { return }
    pending[vector] = false
    if interruptCounts.msix > 0 {
      if autoMasks { masked[vector] = true }
      interrupts?.signal(.msix, vector: vector)
    } else if interruptCounts.msi > 0 {
      if autoMasks { masked[vector] = true }
      interrupts?.signal(.msi, vector: vector)
    } else {
      isLineAsserted = true
      interrupts?.signal(.intx, vector: 0)
    }
  }

  func unmaskedINTx() { if isLineAsserted { interrupts?.signal(.intx, vector: 0) } }

  private func linkChanged() {
    if !isActive { return }
    write32(shared + 696, read32(shared + 696) | 4)
    trigger(eventVector)
  }

  /// The events that the driver has not taken back.
  var events: UInt32 { shared == 0 ? 0 : read32(shared + 696) }

  // MARK: - The driver's memory

  private func read(_ address: UInt64, _ count: Int) -> UInt64 {
    bytes(at: address, count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  func read8(_ address: UInt64) -> UInt8 { UInt8(read(address, 1)) }
  func read16(_ address: UInt64) -> UInt16 { UInt16(read(address, 2)) }
  func read32(_ address: UInt64) -> UInt32 { UInt32(read(address, 4)) }
  func read64(_ address: UInt64) -> UInt64 { read(address, 8) }

  func bytes(at address: UInt64, _ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    let isThere = bytes.withUnsafeMutableBytes { target in
      target.baseAddress.map { dma.read(address, into: $0, count: count) } ?? (count == 0)
    }
    if !isThere { violations.append("a read outside DMA memory") }
    return bytes
  }

  func write8(_ address: UInt64, _ value: UInt8) { write([value], to: address) }
  func write32(_ address: UInt64, _ value: UInt32) { write(littleEndian(value), to: address) }
  func write64(_ address: UInt64, _ value: UInt64) { write(littleEndian(value), to: address) }

  func write(_ bytes: [UInt8], to address: UInt64) {
    let isThere = bytes.withUnsafeBytes { source in
      source.baseAddress.map { dma.write(address, from: $0, count: bytes.count) } ?? false
    }
    if !isThere { violations.append("a write outside DMA memory") }
  }

  private func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { [UInt8]($0) }
  }
}
