import Emulation
import Glibc
import Ixy

/// One client of a server: what it negotiated, mapped and attached, and the answers to its messages.
final class Session {
  private let model: any DeviceModel
  private let regions: Regions
  private let mappings: DMAMappings
  private let interrupts: InterruptFDs
  private(set) var isNegotiated = false
  /// The most writes in one REGION_WRITE_MULTI, as many as QEMU sends: each may reset the device.
  private static let mostWrites: UInt64 = 200

  /// A client that has just come to `model`, which is as after power-on.
  init(model: any DeviceModel, sharesPages: Bool) {
    self.model = model
    regions = Regions(model: model, sharedPages: sharesPages ? model.sharedPages : nil)
    mappings = DMAMappings(model.dma)
    interrupts = InterruptFDs(counts: model.interruptCounts) { [unowned model] in
      model.unmaskedINTx()
    }
    model.interrupts = interrupts
  }

  /// Puts the model back to power-on: no memory, no interrupts.
  ///
  /// A client may keep what it has mapped: the next one gets other pages, so that it cannot ring its doorbells.
  ///
  /// - Returns: Whether there are others; if not, nobody else may be served.
  func end() -> Bool {
    model.interrupts = nil
    // First: new pages need a mapping, and the client may have taken all that there are.
    mappings.removeAll()
    if isNegotiated { return model.renewSharedPages() }
    model.reset()
    return true
  }

  /// What a command gets back.
  struct Reply {
    var payload: [UInt8] = []
    var file: Int32?
  }

  /// Obeys one command.
  func answer(_ message: Message, _ files: ReceivedFiles) throws(Refusal) -> Reply {
    guard let command = Command(rawValue: message.command) else {
      throw Refusal("there is no such command")
    }
    guard isNegotiated != (command == .version) else {
      throw Refusal("VERSION comes first, and once")
    }
    guard files.count == 0 || command == .mapDMA || command == .setIRQs else {
      throw Refusal("descriptors came with it")
    }
    // What was written to shared pages before the message was sent comes before it here, too.
    model.takeSharedWrites()
    return try answer(command, message.payload, files)
  }

  private func answer(_ command: Command, _ payload: [UInt8], _ files: ReceivedFiles)
    throws(Refusal) -> Reply
  {
    switch command {
    case .version: return try version(payload)
    case .mapDMA:
      try mappings.map(payload, files)
      return Reply()
    case .unmapDMA:
      try mappings.unmap(payload)
      return Reply(payload: Array(payload.prefix(24)))
    case .deviceInfo: return try deviceInfo(payload)
    case .regionInfo:
      let (payload, file) = try regions.info(payload)
      return Reply(payload: payload, file: file)
    case .irqInfo: return try irqInfo(payload)
    case .setIRQs:
      try interrupts.set(SetIRQs(payload: payload), files)
      return Reply()
    case .regionRead: return try read(payload)
    case .regionWrite: return try write(payload)
    case .regionWriteMulti: return try writeMulti(payload)
    case .reset:
      model.reset()
      interrupts.reset()
      return Reply()
    case .deviceFeature: throw Refusal(ENOTTY, "the device has no such feature")
    case .regionIOFDs, .dirtyPages, .readMigrationData, .writeMigrationData:
      throw Refusal(ENOTSUP, "it is not supported")
    case .readDMA, .writeDMA: throw Refusal("only servers send it")
    }
  }

  private func version(_ payload: [UInt8]) throws(Refusal) -> Reply {
    let version = try Version(payload: payload)
    isNegotiated = true
    return Reply(
      payload: Version.payload(json: Capabilities.ours.json(room: version.jsonSize)))
  }

  /// DEVICE_GET_INFO: flags 1 (can be reset) and 2 (is a PCI device).
  private func deviceInfo(_ payload: [UInt8]) throws(Refusal) -> Reply {
    try Self.checkSize(payload, 16)
    return Reply(
      payload: [UInt8](words: 16, 0b11, UInt32(Regions.count), UInt32(interrupts.indexCount)))
  }

  /// DEVICE_GET_IRQ_INFO: flags 1 (eventfds), 2 (maskable) and 4 (masks itself).
  private func irqInfo(_ payload: [UInt8]) throws(Refusal) -> Reply {
    try Self.checkSize(payload, 16)
    let index = Int(number(in: payload[8..<12]))
    guard let count = interrupts.count(at: index) else { throw Refusal("there is no such index") }
    let flags: UInt32 = index == InterruptKind.intx.rawValue ? 0b111 : 0b1
    return Reply(payload: [UInt8](words: 16, flags, UInt32(index), UInt32(count)))
  }

  private static func checkSize(_ payload: [UInt8], _ size: Int) throws(Refusal) {
    var fields = Fields(payload)
    guard try fields.take(UInt32.self) >= size, payload.count >= size else {
      throw Refusal("it is too short")
    }
  }

  private func read(_ payload: [UInt8]) throws(Refusal) -> Reply {
    var fields = Fields(payload)
    let access = try RegionAccess(&fields)
    return Reply(payload: access.payload + (try regions.read(access)))
  }

  private func write(_ payload: [UInt8]) throws(Refusal) -> Reply {
    var fields = Fields(payload)
    let access = try RegionAccess(&fields)
    guard fields.rest.count == access.count else { throw Refusal("its data has another length") }
    try regions.write(fields.rest, access)
    return Reply(payload: access.payload)
  }

  /// REGION_WRITE_MULTI: writes of up to 8 bytes, each with a field of 8 for its data.
  private func writeMulti(_ payload: [UInt8]) throws(Refusal) -> Reply {
    var fields = Fields(payload)
    let count = try fields.take(UInt64.self)
    guard count <= Self.mostWrites, UInt64(fields.rest.count) == count * 24 else {
      throw Refusal("its data has another length, or over \(Self.mostWrites) writes")
    }
    for _ in 0..<count {
      let access = try RegionAccess(&fields)
      let data = try fields.take(UInt64.self)
      guard (1...8).contains(access.count) else { throw Refusal("an entry has a wrong size") }
      var bytes: [UInt8] = []
      bytes.append(field: data)
      try regions.write(bytes[...], access)
    }
    return Reply(payload: Array(payload.prefix(8)))
  }
}
