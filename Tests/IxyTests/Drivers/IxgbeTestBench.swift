import Emulation
import Testing

@testable import Ixy

/// The ixgbe driver and an emulated card with a wire that the test holds, in one thread.
final class IxgbeTestBench {
  let domain: DMADomain
  let wire = TestWire()
  let model: NIC82599
  let device: IxgbeDevice
  let pool: Mempool

  init(
    domain: DMADomain = DMADomain(), family: NIC82599.Family = .i82599, buffers: Int = 2048,
    _ change: (inout DeviceConfiguration) -> Void = { _ in }
  ) throws {
    self.domain = domain
    var configuration = DeviceConfiguration()
    configuration.ringEntries = 64
    change(&configuration)
    model = try NIC82599(
      wire: wire, mac: MACAddress(bits: 0x02_1B_21_00_00_01), family: family)
    device = try IxgbeDevice(
      InProcessDevice(model), domain: domain, configuration: configuration)
    pool = try Mempool(domain: domain, buffers: buffers, bufferSize: configuration.bufferSize)
  }

  /// Lets the card work until it has nothing to do.
  func settle() {
    while model.step() > 0 {}
  }
}

/// A wire whose ends are arrays.
final class TestWire: Wire {
  let kind = "test"
  var waitsForDescriptors = true
  var isConnected = true
  let readiness: Int32? = nil
  var canSend = true
  var counts = WireCounts()
  /// What the card shall receive, oldest first.
  var incoming: [[UInt8]] = []
  /// What the card has sent.
  var outgoing: [[UInt8]] = []
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 64)

  deinit { buffer.deallocate() }

  func send(_ frame: UnsafeRawBufferPointer) { outgoing.append([UInt8](frame)) }

  func nextFrame() -> UnsafeRawBufferPointer? {
    guard let frame = incoming.first else { return nil }
    buffer.copyBytes(from: frame)
    return UnsafeRawBufferPointer(rebasing: buffer[..<frame.count])
  }

  func takeFrame() { incoming.removeFirst() }
  func receiverChanged(isOn: Bool) {}
  func close() throws(DeviceError) {}
}

/// A frame to `destination` (broadcast, if none is given) with bytes that depend on `number`.
func frame(
  _ number: Int, size: Int = 60, to destination: MACAddress = MACAddress(bits: 0xFFFF_FFFF_FFFF)
) -> [UInt8] {
  (0..<size).map { i in
    i < 6 ? destination[i] : i == 12 || i == 13 ? 0x88 : UInt8(truncatingIfNeeded: number + i)
  }
}

extension PacketBatch {
  /// The bytes of every packet; the batch is empty afterwards.
  mutating func takeBytes() -> [[UInt8]] {
    var all: [[UInt8]] = []
    forEach { packet in all.append((0..<packet.count).map { packet[$0] }) }
    removeAll()
    return all
  }
}
