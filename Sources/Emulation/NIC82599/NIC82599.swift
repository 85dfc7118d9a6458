import Ixy

/// An emulated network card of the 82599 family, with one port.
///
/// Its registers behave as the reference says; its frames go to a `Wire`. It moves nothing by itself: its
/// host calls `step()`.
public final class NIC82599: DeviceModel {
  /// The generations that share the 82599's registers.
  public enum Family: Sendable {
    /// With an SFP+ module, 8086:10FB.
    case i82599
    /// With a 10GBASE-T PHY, 8086:1528.
    case x540
    /// With a 10GBASE-T PHY and firmware in front of its EEPROM, 8086:1563.
    case x550
  }

  /// The most frames that one step moves each way.
  private static let framesPerStep = 64
  /// CTRL, bit 2: no new DMA, please.
  static let masterDisable: UInt32 = 1 << 2
  /// RXCTRL, bit 0.
  private static let receiveEnable: UInt32 = 1 << 0

  /// How messages name it.
  public let name: String
  /// Which generation it is.
  public let family: Family
  /// Registers with an unused flash behind them, I/O window, MSI-X table.
  public let barSizes = [512 << 10, 0, 32, 0, 16 << 10, 0]
  /// PCI Express: 4,096 bytes.
  public let configSize = ConfigSpace.size
  /// The line, one MSI, 64 MSI-X.
  public let interruptCounts = (intx: 1, msi: 1, msix: 64)
  /// The memory of the driver, as far as it was mapped.
  public let dma = DMATable()
  /// Takes what the user should know: DMA that was refused; at most one message a second.
  public var onReport: ((String) -> Void)?
  /// Where interrupts go; nil drops them.
  public var interrupts: (any InterruptSink)? {
    get { interruptUnit.sink }
    set { interruptUnit.sink = newValue }
  }
  /// The pages with the queues' registers, unless sharing was switched off.
  public var sharedPages: SharedPages? {
    guard shared.isOn, registers.file.number >= 0 else { return nil }
    return unsafe SharedPages(
      file: registers.file.number, base: registers.base, ranges: SharedRegisters.pages)
  }

  let wire: any Wire
  let mac: MACAddress
  let map: RegisterMap
  let registers: RegisterFile
  let interruptUnit = InterruptUnit()
  let statistics: PortStatistics
  let receiver: ReceiveEngine
  let transmitter: TransmitEngine
  let link: LinkUnit
  var config: ConfigSpace
  var eeprom: EEPROM
  var module: SFPModule?
  var semaphores: Semaphores
  var hostInterface: HostInterface
  var twoWire: UInt32 = 0xF
  let shared: SharedRegisters
  /// IOADDR: the register that IODATA reaches.
  var window: UInt32 = 0
  var stepsToScan = 0
  var vectorTable = [UInt32](repeating: 0, count: (16 << 10) / 4)
  private var isReceiverOn = false
  /// What config space says; asked at every step.
  private var allowsDMA = false
  private var lastReport: UInt64 = 0

  /// A card with its cable in `wire`.
  ///
  /// - Parameters:
  ///   - wire: Where its frames go.
  ///   - mac: The address in its EEPROM.
  ///   - family: Which generation it is.
  ///   - name: How messages name it.
  ///   - sharesQueueRegisters: Whether drivers may map the pages with the queues' registers; without, every access is exact.
  /// - Throws: When there is no memory for its registers.
  public init(
    wire: any Wire, mac: MACAddress, family: Family = .i82599, name: String = "emu:82599",
    sharesQueueRegisters: Bool = true
  ) throws(DeviceError) {
    (self.wire, self.mac, self.family, self.name) = (wire, mac, family, name)
    map = RegisterMap.of(family)
    registers = try RegisterFile()
    shared = SharedRegisters(map: map, isOn: sharesQueueRegisters)
    statistics = PortStatistics(registers: registers)
    receiver = ReceiveEngine(
      registers: registers, dma: dma, statistics: statistics, interrupts: interruptUnit,
      hasWideTable: family == .x550)
    transmitter = TransmitEngine(
      registers: registers, dma: dma, statistics: statistics, interrupts: interruptUnit,
      receiver: receiver)
    let strap = map.find(0x042A0)?.block.reset ?? 0
    link = LinkUnit(
      wire: wire, registers: registers, interrupts: interruptUnit, phy: family.phy, strap: strap)
    config = ConfigSpace(
      device: family.device, subsystem: family.subsystem, serial: mac.serialNumber,
      barSizes: barSizes)
    eeprom = EEPROM(mac: mac, family: family)
    hostInterface = HostInterface(isEnabled: family == .x550)
    module = family == .i82599 ? SFPModule() : nil
    semaphores = Semaphores(hasRegisterSemaphore: family != .i82599)
    dma.onViolation = { [weak self] iova, size, isWrite in
      // A write gets no answer, so the card does not know.
      if !isWrite { self?.config.noteMasterAbort() }
      self?.reportViolation(iova, size, isWrite)
    }
    resetRegisters()
    applyConfig()
  }

  // MARK: Config space

  /// Reads config space.
  public func readConfig(_ offset: Int, width: Int) -> UInt32 {
    config.isInterruptPending = interruptUnit.isLinePending
    return config.read(offset, width: width)
  }

  /// Writes config space: enables, power state, function-level reset.
  public func writeConfig(_ value: UInt32, to offset: Int, width: Int) {
    if config.write(value, to: offset, width: width) == .reset { reset() }
    applyConfig()
    interruptUnit.deliver()
  }

  private func applyConfig() {
    allowsDMA = config.allowsDMA
    interruptUnit.delivery = config.isAwake ? config.delivery : .none
    // A message is a write to memory, which takes bus mastering.
    interruptUnit.isHeld = config.masksAllVectors || !config.allowsDMA
  }

  /// Back to power-on: registers, vectors, semaphores and config space; what is in the EEPROM stays.
  public func reset() {
    config.reset()
    semaphores = Semaphores(hasRegisterSemaphore: family != .i82599)
    hostInterface = HostInterface(isEnabled: family == .x550)
    window = 0
    for place in vectorTable.indices { vectorTable[place] = 0 }
    resetRegisters()
    applyConfig()
  }

  /// Takes the registers away from all who have mapped them, and the EEPROM is as it was made.
  public func renewSharedPages() -> Bool {
    let isRenewed = registers.renew()
    eeprom = EEPROM(mac: mac, family: family)
    reset()
    return isRenewed
  }

  /// The host's end of INTx was unmasked.
  public func unmaskedINTx() { interruptUnit.unmaskedLine() }

  // MARK: Reset

  /// What CTRL.RST, LNK_RST and all greater resets do: every register as after power-on.
  func resetRegisters() {
    statistics.flush()
    receiver.reset()
    transmitter.reset()
    interruptUnit.reset()
    link.reset()
    for (home, twin, value) in map.resets { store(value, at: home, twin: twin) }
    store(mac.lowRegister, at: 0x0A200, twin: 0x05400)
    store(mac.highRegister, at: 0x0A204, twin: 0x05404)
    shared.latchAll(registers)
    eeprom.reset()
    twoWire = 0xF
    receiver.configurationChanged()
    transmitter.configurationChanged()
    receiverChanged()
  }

  /// Tells the wire when reception is switched on or off.
  func receiverChanged() {
    let isOn = registers.has(Self.receiveEnable, at: 0x03000)
    guard isOn != isReceiverOn else { return }
    isReceiverOn = isOn
    wire.receiverChanged(isOn: isOn)
  }

  // MARK: Work

  /// Whether the card may reach memory: the bus allows it, and software has not asked it to stop.
  private var mayMoveFrames: Bool {
    allowsDMA && !registers.has(Self.masterDisable, at: 0x00000)
  }

  /// Takes in the tails, moves frames both ways, signals interrupts.
  ///
  /// - Returns: The number of frames moved.
  public func step() -> Int {
    takeTails()
    link.update()
    // Also with an empty ring: the wire may still hold a frame that the other end had no room for.
    _ = wire.canSend
    var moved = 0
    if mayMoveFrames {
      moved = receiver.poll(wire, limit: Self.framesPerStep)
      moved += transmitter.poll(wire, limit: Self.framesPerStep)
      if moved > 0 { shared.latchHeads(registers) }
    }
    interruptUnit.deliver()
    return moved
  }

  private func reportViolation(_ iova: UInt64, _ size: Int, _ isWrite: Bool) {
    let time = interruptUnit.now()
    guard onReport != nil, lastReport == 0 || time &- lastReport >= 1_000_000_000 else { return }
    lastReport = max(1, time)
    let access = isWrite ? "write" : "read"
    onReport?(
      "\(name): refused to \(access) \(size) bytes at IOVA 0x\(String(iova, radix: 16)), which the "
        + "driver has not mapped for it (\(dma.violations) accesses refused so far).")
  }
}

extension NIC82599.Family {
  /// The PCI device id.
  var device: UInt32 {
    switch self {
    case .i82599: 0x10FB
    case .x540: 0x1528
    case .x550: 0x1563
    }
  }

  /// The subsystem id, of an ordinary card with two ports.
  var subsystem: UInt32 { self == .i82599 ? 0x0003 : 0x0001 }

  /// What answers on MDIO.
  var phy: PHY? {
    switch self {
    case .i82599: nil
    case .x540: PHY(identifier: 0x0154_0200)
    case .x550: PHY(identifier: 0x0154_0220)
    }
  }
}

extension MACAddress {
  /// RAL: the first four bytes, the first lowest.
  var lowRegister: UInt32 { (0..<4).reduce(0) { $0 | UInt32(self[$1]) << UInt32(8 * $1) } }
  /// RAH: the other two, and AV.
  var highRegister: UInt32 { UInt32(self[4]) | UInt32(self[5]) << 8 | 1 << 31 }
  /// The device serial number: the address with FFFF in its middle.
  var serialNumber: UInt64 { (bits >> 24) << 40 | 0xFFFF << 24 | bits & 0xFF_FFFF }
}
