private typealias Reg = Vmxnet3Register

extension Vmxnet3Device {
  /// Sets up an interrupt for each receive queue and one for the link.
  ///
  /// The device chooses by itself how long it holds them back; a throttle of zero forbids that.
  public func enableInterrupts(throttle: Duration) throws(DeviceError) -> DeviceInterrupts {
    let queues = configuration.receiveQueues
    if isActive {
      throw .refused(
        "Set up interrupts of \(name)", found: "a queue is taken", advice: "Do it before.")
    }
    // The vector of sent frames stays masked, but must be there.
    let hasSpare = try (pci as? any InterruptingDevice)?.interruptCount(.msix) ?? 0 > queues + 1
    let connected = try DeviceInterrupts(of: pci, queues: queues)
    if !connected.isShared, !hasSpare {
      throw .refused(
        "Set up interrupts of \(name)", found: "it has only \(queues + 1) MSI-X vectors",
        advice: "Use fewer queues, or poll: --interrupts off")
    }
    interrupts.isOn = true
    interrupts.isShared = connected.isShared
    interrupts.isModerated = throttle > .zero
    // Not the interrupts themselves: who holds them would then hold the card for ever.
    let (data, control) = (data, control)
    let (isShared, isLine) = (connected.isShared, connected.kind == .intx)
    let events = isShared ? 0 : queues
    // A message masks itself; 0 lets it come again, and what it held back at once.
    connected.onEnable(of: pci) { id in
      if !isShared { data[Reg.imr(id)] = 0 }
    } link: {
      if isLine { _ = control[Reg.icr] }
      control[Reg.ecr] = .linkChange
      data[Reg.imr(events)] = 0
    }
    return connected
  }
}
