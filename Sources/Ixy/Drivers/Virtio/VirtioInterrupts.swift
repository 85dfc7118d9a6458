extension VirtioDevice {
  /// Chooses a vector for each receive queue, and the next one for the configuration.
  ///
  /// This is done whether they will be wanted or not, because it must be done before the device is started;
  /// until MSI-X is switched on, nothing comes of it.
  ///
  /// - Returns: False when there are too few, or the device refuses one.
  func chooseVectors() throws(DeviceError) -> Bool {
    // The registers of legacy devices have no place for vectors before MSI-X is on.
    guard transport.isModern, let msix = try pci.capability(0x11) else { return false }
    // Message control, bits 10:0: the number of vectors less one.
    let count = Int(try pci.readConfig(msix + 2, width: 2) & 0x7FF) + 1
    let queues = configuration.receiveQueues
    if count <= queues { return false }
    for id in 0..<queues where !transport.setVector(UInt16(id), of: 2 * id) { return false }
    return transport.setVector(UInt16(queues), of: nil)
  }

  /// Sets up an interrupt for each receive queue and one for the configuration, which has the link's state.
  ///
  /// - Parameter throttle: Ignored: a queue interrupts once, and not again before it is asked to.
  /// - Returns: The interrupts; they may go to the threads of their queues.
  /// - Throws: `DeviceError.refused` when the device or the way to it has none.
  public func enableInterrupts(throttle: Duration) throws(DeviceError) -> DeviceInterrupts {
    let interrupts = try DeviceInterrupts(of: pci, queues: configuration.receiveQueues)
    if interrupts.kind == .msix, !hasVectors {
      throw .refused(
        "Set up interrupts of \(name)", found: "the device takes no vectors",
        advice: "Poll: --interrupts off")
    }
    if interrupts.kind == .intx { try pci.setINTx(true) }
    let listen = (0..<configuration.receiveQueues).map { listener(2 * $0) }
    let (transport, isShared) = (transport, interrupts.isShared)
    interrupts.onEnable(of: pci) { id in
      listen[id]()
    } link: {
      // Reading it takes the line back; messages need no answer.
      if isShared { _ = transport.takeInterruptStatus() }
    }
    return interrupts
  }
}
