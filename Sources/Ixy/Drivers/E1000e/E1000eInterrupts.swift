private typealias Reg = E1000eRegister

extension E1000eDevice {
  /// Sets up an interrupt for each receive queue and one for the link.
  public func enableInterrupts(throttle: Duration) throws(DeviceError) -> DeviceInterrupts {
    let queues = configuration.receiveQueues
    let interrupts = try DeviceInterrupts(of: pci, queues: queues)
    let bar = bar
    if interrupts.isShared {
      bar[Reg.itr].microseconds = throttle.microseconds
      // Which cause it was, nobody asks: both are looked at. Reading takes them all back.
      interrupts.onEnable(of: pci) { _ in
        bar[Reg.ims] = .received
      } link: {
        _ = bar[Reg.icr]
        bar[Reg.ims] = .linkChange
      }
      return interrupts
    }
    bar[Reg.ctrlExt].formUnion([.pendingBits, .autoMask])
    var allocation = Reg.VectorAllocation(bits: 0)
    var causes: Reg.Causes = []
    for id in 0..<queues {
      allocation.route(receive: id, to: id)
      causes.insert(.receive(id))
      bar[Reg.eitr(id)].microseconds = throttle.microseconds
    }
    allocation.route(otherTo: queues)
    bar[Reg.ivar] = allocation
    // A queue's message takes its cause back, and masks itself.
    bar[Reg.eiac] = causes
    bar[Reg.iam] = causes
    interrupts.onEnable(of: pci) { id in
      bar[Reg.ims] = .receive(id)
    } link: {
      bar[Reg.icr] = [.linkChange, .other]
      bar[Reg.ims] = [.linkChange, .other]
    }
    return interrupts
  }
}
