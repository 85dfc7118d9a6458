import Ixy

extension VFIOUserDevice: InterruptingDevice {
  /// Asks the server how many vectors of a kind the device has.
  public func interruptCount(_ kind: InterruptKind) throws(DeviceError) -> Int {
    let request = [UInt8](words: 16, 0, UInt32(kind.rawValue), 0)
    let count = try words(of: .irqInfo, request, count: 4)[3]
    // As many as MSI-X can have; each is a descriptor of ours.
    guard count <= 2048 else { throw misbehaved("the server's device has \(count) interrupts") }
    return Int(count)
  }

  /// Sends eventfds to the server, and switches interrupts of this kind on in config space.
  public func setInterrupts(_ kind: InterruptKind, eventFDs: [Int32]) throws(DeviceError) {
    try send(SetIRQs(.trigger, .none, index: kind.rawValue, start: 0, count: 0), [])
    // As many to a message as the server takes; the data are the descriptors alone, as QEMU does it.
    let limit = min(capabilities.maxFiles, Message.maxFiles)
    for start in stride(from: 0, to: eventFDs.count, by: limit) {
      let part = Array(eventFDs[start..<min(start + limit, eventFDs.count)])
      try send(
        SetIRQs(.trigger, .eventFD, index: kind.rawValue, start: start, count: part.count), part)
    }
    try switchInterrupts(kind, on: !eventFDs.isEmpty)
  }

  /// Lets INTx signal again after one interrupt; its line masks itself.
  public func unmaskINTx() throws(DeviceError) {
    try send(SetIRQs(.unmask, .none, index: 0, start: 0, count: 1), [])
  }

  private func send(_ request: SetIRQs, _ files: [Int32]) throws(DeviceError) {
    _ = try server.call(.setIRQs, request.payload, files: files)
  }
}
