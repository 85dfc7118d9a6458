import Emulation
import Ixy

/// A card that lies whenever its input says so: in registers, in config space and in its rings.
///
/// Behind it is an honest model, which moves frames when it is asked to.
final class HostileCard: DeviceModel {
  /// What registers and config space read as.
  enum Lies: UInt8 { case none, allOnes, zero, flips, anything, stale, mixed }

  let inner: any DeviceModel
  let choices: Choices
  var rings: any HostileRings
  var lies = Lies.none
  /// In how many of 256 cases a read is a lie.
  var rate = 0
  /// Everything reads as all ones, and nothing that is written arrives.
  var isUnplugged = false
  /// Lies, bad descriptors and what else was done to the driver.
  private(set) var operations = 0
  /// The last value of each register that was written.
  private(set) var written: [Int: UInt64] = [:]
  private var lastRead: UInt64 = 0

  init(_ inner: any DeviceModel, _ choices: Choices, _ rings: any HostileRings) {
    (self.inner, self.choices, self.rings) = (inner, choices, rings)
  }

  var name: String { inner.name }
  var barSizes: [Int] { inner.barSizes }
  var configSize: Int { inner.configSize }
  var interruptCounts: (intx: Int, msi: Int, msix: Int) { inner.interruptCounts }
  var dma: DMATable { inner.dma }
  var interrupts: (any InterruptSink)? {
    get { inner.interrupts }
    set { inner.interrupts = newValue }
  }
  var sharedPages: SharedPages? { nil }
  func reset() { inner.reset() }
  func unmaskedINTx() { inner.unmaskedINTx() }
  func takeSharedWrites() {}
  func step() -> Int { inner.step() }

  // MARK: - Registers

  func readConfig(_ offset: Int, width: Int) -> UInt32 {
    let isThere = offset >= 0 && offset + width <= inner.configSize && !isUnplugged
    let honest = isThere ? inner.readConfig(offset, width: width) : .max
    return UInt32(truncatingIfNeeded: lie(UInt64(honest), width))
  }

  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {
    guard offset >= 0, offset + width <= inner.configSize, !isUnplugged else { return }
    inner.writeConfig(value, to: offset, width: width)
  }

  func read(bar: Int, _ offset: Int, width: Int) -> UInt64 {
    if isUnplugged { return lie(.max, width) }
    let isKnown = rings.mayRead(bar: bar, offset, width: width)
    return lie(isKnown ? inner.read(bar: bar, offset, width: width) : 0, width)
  }

  func write(_ value: UInt64, bar: Int, to offset: Int, width: Int) {
    if isUnplugged { return }
    if bar == 0 { written[offset] = value }
    if rings.takesWrite(value, bar: bar, to: offset, width: width, choices) { return }
    inner.write(value, bar: bar, to: offset, width: width)
  }

  /// What a read gives instead of the truth.
  private func lie(_ honest: UInt64, _ width: Int) -> UInt64 {
    let mask = UInt64.max >> UInt64(64 - 8 * width)
    defer { lastRead = honest }
    guard lies != .none, choices.isOdd(rate) else { return honest & mask }
    operations += 1
    let kind = lies == .mixed ? Lies(rawValue: choices.byte() % 6) ?? .none : lies
    return switch kind {
    case .none, .mixed: honest & mask
    case .allOnes: mask
    case .zero: 0
    case .flips: (honest ^ 1 << UInt64(choices.byte() % 64)) & mask
    case .anything: choices.number(bytes: width) & mask
    case .stale: lastRead & mask
    }
  }

  // MARK: - What it does by itself

  /// Writes something into a ring that does not belong there, or not now.
  func spoilRings() {
    operations += 1
    rings.lie(dma, written, choices)
  }

  /// Does something to the driver that no honest card does.
  func misbehave() {
    operations += 1
    switch choices.byte() {
    case 0...1: isUnplugged.toggle()
    case 2...3: inner.reset()
    case 4...9:
      lies = Lies(rawValue: choices.byte() % 7) ?? .none
      rate = [1, 16, 128, 256][choices.below(4)]
    case 10...15: lies = .none
    case 16...23: storm()
    default: rings.lie(dma, written, choices)
    }
  }

  /// Interrupts that nobody has asked for, on vectors that there are and others.
  private func storm() {
    for _ in 0..<Int(choices.byte()) {
      let kinds: [InterruptKind] = [.intx, .msi, .msix]
      interrupts?.signal(choices.pick(kinds), vector: choices.below(300) - 20)
    }
  }

  /// Whether its driver can stop it now.
  var canStop: Bool { lies == .none && !isUnplugged && rings.canStop }

  /// From here on it does as a card should, so that its driver can stop it.
  func behave() {
    lies = .none
    isUnplugged = false
    rings.behave()
  }
}

/// The device's side of a card's rings, honest and otherwise.
protocol HostileRings: AnyObject {
  /// Whether the model can answer this read.
  func mayRead(bar: Int, _ offset: Int, width: Int) -> Bool
  /// Takes a write that the model shall not see.
  func takesWrite(_ value: UInt64, bar: Int, to offset: Int, width: Int, _ choices: Choices) -> Bool
  /// Writes something into a ring that does not belong there, or not now.
  func lie(_ dma: DMATable, _ written: [Int: UInt64], _ choices: Choices)
  /// Receives and sends as a good card does.
  func work(_ choices: Choices)
  /// Whether its driver can stop it.
  var canStop: Bool { get }
  /// From here on it can be stopped.
  func behave()
}

/// Rings whose model knows every register and can always be stopped.
extension HostileRings {
  func mayRead(bar: Int, _ offset: Int, width: Int) -> Bool { true }
  func takesWrite(
    _ value: UInt64, bar: Int, to offset: Int, width: Int, _ choices: Choices
  ) -> Bool { false }
  var canStop: Bool { true }
  func behave() {}
}

extension DMATable {
  func load(_ iova: UInt64, bytes count: Int) -> UInt64? {
    var value: UInt64 = 0
    return read(iova, into: &value, count: count) ? UInt64(littleEndian: value) : nil
  }

  func store(_ value: UInt64, to iova: UInt64, bytes count: Int) {
    var value = value.littleEndian
    _ = write(iova, from: &value, count: count)
  }
}
