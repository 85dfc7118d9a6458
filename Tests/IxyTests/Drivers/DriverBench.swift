import Emulation
import Testing

@testable import Ixy

/// A driver over a model of its card, in one thread.
struct DriverBench {
  let device: any EthernetDevice
  let pool: Mempool
  let domain = DMADomain()

  /// Opens a model with the driver that its ids ask for.
  init(
    _ model: any DeviceModel, buffers: Int = 512,
    configure: (inout DeviceConfiguration) -> Void = { _ in }
  ) throws {
    var configuration = DeviceConfiguration()
    configuration.ringEntries = 64
    configure(&configuration)
    device = try openDevice(
      InProcessDevice(model), domain: domain, configuration: configuration)
    pool = try Mempool(domain: domain, buffers: buffers, bufferSize: configuration.bufferSize)
  }

  /// A packet of the pool with these bytes.
  func packet(_ frame: [UInt8]) throws -> Packet {
    guard var packet = pool.packet(length: frame.count) else { throw BenchError.poolIsEmpty }
    packet.fill(frame)
    return packet
  }

  /// Sends one frame; false when the ring is full.
  func send(_ frame: [UInt8], by queue: inout any TransmitQueue & ~Copyable) throws -> Bool {
    let rest = try queue.transmit(try packet(frame))
    return rest == nil
  }
}

enum BenchError: Error { case poolIsEmpty }

extension Mempool {
  /// A packet that must be there.
  func fresh(_ length: Int) throws -> Packet {
    guard let packet = packet(length: length) else { throw BenchError.poolIsEmpty }
    return packet
  }
}

extension Packet {
  /// Overwrites the frame, which is as long as `frame`.
  mutating func fill(_ frame: [UInt8]) {
    var bytes = self.bytes
    for (i, byte) in frame.enumerated() {
      bytes.storeBytes(of: byte, toByteOffset: i, as: UInt8.self)
    }
  }

  /// The bytes of the frame.
  var frame: [UInt8] {
    contents.withUnsafeBytes { [UInt8]($0) }
  }
}

extension PacketBatch {
  /// All frames in it; the batch is empty afterwards.
  mutating func takeFrames() -> [[UInt8]] {
    var frames: [[UInt8]] = []
    while let packet = popFirst() { frames.append(packet.frame) }
    return frames
  }
}

/// A frame to 52:54:00:12:34:56 of `length` bytes, each frame of its own by `number`.
func testFrame(_ number: Int, length: Int = 60, type: UInt16 = 0x88B5) -> [UInt8] {
  var frame: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x02, 0, 0, 0, 0, 0x01]
  frame += [UInt8(type >> 8), UInt8(type & 0xFF)]
  for i in frame.count..<length { frame.append(UInt8(truncatingIfNeeded: number &+ i &* 7)) }
  if length >= 18 { for i in 0..<4 { frame[14 + i] = UInt8(number >> (8 * i) & 0xFF) } }
  return frame
}

/// A TCP segment over IPv4 of flow `flow`.
func tcpFrame(flow: Int) -> [UInt8] {
  var frame = testFrame(0, length: 60, type: 0x0800)
  frame[14] = 0x45
  frame[23] = 6
  let ports: [UInt8] = [UInt8(flow & 0xFF), UInt8(flow >> 8), 0, 80]
  frame.replaceSubrange(26..<38, with: [10, 0, 0, 1, 10, 0, 0, 2] + ports)
  return frame
}
