import Ixy

@testable import Emulation

/// A cable that can be pulled, with a queue each way.
final class TestCable: Wire {
  var incoming: [[UInt8]] = []
  var outgoing: [[UInt8]] = []
  private var current: UnsafeMutableRawBufferPointer?
  let kind = "test"
  let waitsForDescriptors = true
  var isConnected = true
  var readiness: Int32? { nil }
  var canSend: Bool { true }
  var counts = WireCounts()
  var receiverChanges: [Bool] = []

  deinit { current?.deallocate() }

  func send(_ frame: UnsafeRawBufferPointer) { outgoing.append([UInt8](frame)) }
  func nextFrame() -> UnsafeRawBufferPointer? {
    guard let first = incoming.first else { return nil }
    current?.deallocate()
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: first.count, alignment: 8)
    copy.copyBytes(from: first)
    current = copy
    return UnsafeRawBufferPointer(copy)
  }
  func takeFrame() { incoming.removeFirst() }
  func receiverChanged(isOn: Bool) { receiverChanges.append(isOn) }
  func close() throws(DeviceError) {}
}

/// Remembers every interrupt.
final class TestSink: InterruptSink {
  var log: [String] = []
  func signal(_ kind: InterruptKind, vector: Int) { log.append("\(kind) \(vector)") }

  /// What has come since the last call.
  func take() -> [String] {
    defer { log = [] }
    return log
  }
}

/// A card alone on a table, with its cable and where its interrupts go.
struct TestCard {
  let nic: NIC82599
  let cable = TestCable()
  let sink = TestSink()
  static let mac = MACAddress(bits: 0x0200_5E10_2030)

  init(_ family: NIC82599.Family = .i82599, shares: Bool = false) throws {
    nic = try NIC82599(
      wire: cable, mac: Self.mac, family: family, sharesQueueRegisters: shares)
    nic.interrupts = sink
  }

  /// A register of BAR 0; what was written to the shared pages comes before it, as with every host.
  subscript(offset: Int) -> UInt32 {
    get {
      nic.takeSharedWrites()
      return UInt32(truncatingIfNeeded: nic.read(bar: 0, offset, width: 4))
    }
    nonmutating set {
      nic.takeSharedWrites()
      nic.write(UInt64(newValue), bar: 0, to: offset, width: 4)
    }
  }

  /// One step, whose count does not matter.
  func step() { _ = nic.step() }

  /// A word of config space.
  func config(_ offset: Int) -> UInt32 { nic.readConfig(offset, width: 4) }
}
