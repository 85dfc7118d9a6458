private typealias Reg = IgbRegister

extension IgbDevice {
  /// Sets up an interrupt for each receive queue and one for the link.
  public func enableInterrupts(throttle: Duration) throws(DeviceError) -> DeviceInterrupts {
    let queues = configuration.receiveQueues
    let interrupts = try DeviceInterrupts(of: pci, queues: queues)
    let bar = bar
    if interrupts.isShared {
      bar[Reg.gpie] = .clearOnRead
      bar[Reg.eitr(0)].microseconds = throttle.microseconds
      // Which cause it was, nobody asks: both are looked at. Reading takes them all back.
      interrupts.onEnable(of: pci) { _ in
        bar[Reg.ims] = .queues
      } link: {
        _ = bar[Reg.icr]
        bar[Reg.ims] = .linkChange
      }
      return interrupts
    }
    bar[Reg.gpie] = [.clearOnRead, .msix, .autoMask, .pendingBits]
    // A queue's message takes its cause back, and masks itself.
    let vectors = UInt32(1) << UInt32(queues) - 1
    bar[Reg.eiac] = vectors
    bar[Reg.eiam] = vectors
    for id in 0..<queues {
      route(queue: id, to: id)
      bar[Reg.eitr(id)].microseconds = throttle.microseconds
    }
    bar[Reg.ivarMisc][8...15] = UInt32(queues) | 0x80
    interrupts.onEnable(of: pci) { id in
      bar[Reg.eims] = 1 << UInt32(id)
    } link: {
      // The cause and its vector; reading the one does not take the other back.
      _ = bar[Reg.icr]
      bar[Reg.eicr] = 1 << UInt32(queues)
      bar[Reg.ims] = .linkChange
      bar[Reg.eims] = 1 << UInt32(queues)
    }
    return interrupts
  }

  /// Gives a receive queue's interrupt to a vector; bit 7 makes it valid.
  private func route(queue: Int, to vector: Int) {
    // The 82576 has a word for queues n and n + 8, its successors for n and n + 1.
    let (word, byte) = family == .i82576 ? (queue % 8, queue / 8 * 2) : (queue / 2, queue % 2 * 2)
    bar[Reg.ivar(word)][8 * byte...8 * byte + 7] = UInt32(vector) | 0x80
  }
}
