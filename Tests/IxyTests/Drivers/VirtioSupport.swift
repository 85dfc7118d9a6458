import Emulation
import Glibc
import Testing

@testable import DriverModels
@testable import Ixy

/// A card made of the model, and what it takes to use it.
struct VirtioCard {
  let model: VirtioModel
  let device: VirtioDevice
  let domain: DMADomain
  let pool: Mempool

  init(
    _ model: VirtioModel = VirtioModel(), ringEntries: Int = 64, mtu: Int = 1500, pairs: Int = 1,
    options: VirtioDevice.Options = .init(), buffers: Int = 256, bufferSize: Int = 2048
  ) throws {
    self.model = model
    domain = DMADomain()
    // A legacy device knows nothing but the machine's addresses.
    if model.offered & VirtioModel.platform == 0 { domain.addressing = PretendedPhysical() }
    var configuration = DeviceConfiguration()
    configuration.ringEntries = ringEntries
    configuration.mtu = mtu
    configuration.receiveQueues = pairs
    configuration.transmitQueues = pairs
    device = try VirtioDevice(
      InProcessDevice(model), domain: domain, configuration: configuration, options: options)
    pool = try Mempool(domain: domain, buffers: buffers, bufferSize: bufferSize)
  }
}

/// Addresses from a counter that pass for the machine's own.
final class PretendedPhysical: PhysicalAddressing {
  private let counted = CountedAddresses(MapperList())
  private var next: UInt64 = 2 << 20
  var space: Int { counted.space }
  var largestBlock: Int { counted.largestBlock }
  func makeFile(_ size: Int) throws(DeviceError) -> FileDescriptor { try counted.makeFile(size) }
  func place(_ file: borrowing FileDescriptor, size: Int) throws(DeviceError) -> UInt64 {
    defer { next += UInt64(size) }
    return next
  }
}

/// A frame of `size` bytes, different for each number.
func virtioFrame(_ number: Int, size: Int = 60) -> [UInt8] {
  (0..<size).map { UInt8(truncatingIfNeeded: number &* 31 &+ $0 &* 7) }
}

/// All orders of the numbers below `count`.
func permutations(_ count: Int) -> [[Int]] {
  if count == 0 { return [[]] }
  return permutations(count - 1).flatMap { shorter in
    (0..<count).map { Array(shorter.prefix($0)) + [count - 1] + shorter.suffix(count - 1 - $0) }
  }
}

extension PacketBatch {
  /// The bytes of all packets.
  mutating func frames() -> [[UInt8]] {
    var all: [[UInt8]] = []
    forEach { packet in all.append((0..<packet.count).map { packet[$0] }) }
    return all
  }
}

extension Mempool {
  /// A packet with these bytes.
  func packet(_ bytes: [UInt8]) throws -> Packet {
    guard var packet = packet(length: bytes.count) else {
      throw DeviceError.refused("Make a packet", found: "the pool is empty", advice: "")
    }
    for (i, byte) in bytes.enumerated() { packet[i] = byte }
    return packet
  }
}

/// Whether an error says that the device broke the rules.
func isMisbehaved(_ error: any Error) -> Bool {
  if case DeviceError.misbehaved = error { true } else { false }
}

/// Whether an error says that something cannot be had.
func isRefused(_ error: any Error) -> Bool {
  if case DeviceError.refused = error { true } else { false }
}

/// Whether an error says that the device took too long.
func isTimeout(_ error: any Error) -> Bool {
  if case DeviceError.timeout = error { true } else { false }
}

/// Whether an error says that the device is not there any more.
func isGone(_ error: any Error) -> Bool {
  if case DeviceError.gone = error { true } else { false }
}
