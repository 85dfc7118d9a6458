import CIxy
import Synchronization

/// What is said to the device on the control queue, with the numbers of its class and command.
enum VirtioCommand {
  case promiscuous(Bool)
  case allMulticast(Bool)
  /// The unicast and the multicast addresses that pass the filter.
  case filter(unicast: [MACAddress], multicast: [MACAddress])
  case setAddress(MACAddress)
  case addVLAN(UInt16)
  case removeVLAN(UInt16)
  /// The number of receive and of transmit queues that the device uses.
  case pairs(Int)
  /// The number of queues, and which frame goes to which of them.
  case spread(VirtioSpreading)

  /// Class, command and data, as they go over the wire.
  var bytes: (kind: UInt8, command: UInt8, data: [UInt8]) {
    switch self {
    case .promiscuous(let on): (0, 0, [on ? 1 : 0])
    case .allMulticast(let on): (0, 1, [on ? 1 : 0])
    case .filter(let unicast, let multicast):
      (1, 0, Self.list(unicast) + Self.list(multicast))
    case .setAddress(let address): (1, 1, (0..<6).map { address[$0] })
    case .addVLAN(let id): (2, 0, littleEndian(id))
    case .removeVLAN(let id): (2, 1, littleEndian(id))
    case .pairs(let count): (4, 0, littleEndian(UInt16(count)))
    case .spread(let spreading): (4, 1, spreading.bytes)
    }
  }

  private static func list(_ addresses: [MACAddress]) -> [UInt8] {
    littleEndian(UInt32(addresses.count))
      + addresses.flatMap { address in (0..<6).map { address[$0] } }
  }
}

/// The bytes of a number, the lowest first.
func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
  stride(from: 0, to: value.bitWidth, by: 8).map { UInt8(truncatingIfNeeded: value >> $0) }
}

/// A ring that carries one chain of descriptors at a time.
protocol VirtioControlRing {
  /// Gives the device a chain: an address and a length each; the device writes to the last one only.
  mutating func submit(_ parts: [(address: UInt64, length: Int)])
  /// Whether the device has used the chain; nil when it did something else.
  mutating func isDone() -> Bool?
}

/// The control queue: commands to the device, one at a time, each with its answer.
@safe final class VirtioControlQueue {
  /// Class and command, then data, then the answer: each part has a descriptor of its own, because old
  /// devices insist on it.
  private enum Layout {
    static let data = 64
    static let answer = 4096 - 64
    static let size = 4096
  }

  private let name: String
  private let lock = Mutex(())
  private let memory: DMAMemory
  private var ring: any VirtioControlRing
  /// The device did not answer once: what it answers next could be for the command before.
  private var isBroken = false

  init(_ ring: any VirtioControlRing, of device: String, in domain: DMADomain) throws(DeviceError) {
    self.ring = ring
    name = device
    memory = try domain.allocate(Layout.size, alignment: 64)
  }

  /// Sends a command and waits for the answer.
  ///
  /// - Throws: `.refused` when the device says no, `.timeout` or `.misbehaved` when it does not answer as it
  ///   should; then the queue is not used any more.
  func send(_ command: VirtioCommand) throws(DeviceError) {
    let (kind, number, data) = command.bytes
    precondition(data.count <= Layout.answer - Layout.data, "command longer than its memory")
    lock._unsafeLock()
    defer { lock._unsafeUnlock() }
    if isBroken {
      throw .misbehaved(device: name, "it has not answered an earlier command")
    }
    let base = unsafe memory.base
    unsafe base.storeBytes(of: kind, as: UInt8.self)
    unsafe base.storeBytes(of: number, toByteOffset: 1, as: UInt8.self)
    for (i, byte) in data.enumerated() {
      unsafe base.storeBytes(of: byte, toByteOffset: Layout.data + i, as: UInt8.self)
    }
    // Only 0 means success: what the device does not write is none.
    unsafe ixy_store8(base + Layout.answer, 0xFF)
    isBroken = true
    ring.submit([
      (memory.iova, 2), (memory.iova + UInt64(Layout.data), data.count),
      (memory.iova + UInt64(Layout.answer), 1),
    ])
    let name = name
    try waitForVirtio("an answer on the control queue", of: name) { () throws(DeviceError) in
      guard let isDone = ring.isDone() else {
        throw .misbehaved(
          device: name, "it used a descriptor of the control queue that it does not have")
      }
      return isDone
    }
    isBroken = false
    let answer = unsafe ixy_load8(base + Layout.answer)
    guard answer == 0 else {
      throw .refused(
        "Ask \(name) for \(command)", found: "it answered \(answer)",
        advice: "The device does not do that, or not now.")
    }
  }

  /// Keeps the memory mapped for ever: the device did not stop, and may still write there.
  func leak() { _ = unsafe Unmanaged.passRetained(memory.block) }
}

/// Commands over a split ring: always the same chain of descriptors.
struct VirtioSplitControlRing: VirtioControlRing {
  private let ring: VirtioSplitRing
  private var next = 0

  init(_ ring: VirtioSplitRing) {
    self.ring = ring
    ring.offerAll(of: 1)
  }

  mutating func submit(_ parts: [(address: UInt64, length: Int)]) {
    for (i, part) in parts.enumerated() {
      // Bit 0: another one follows. Bit 1: the device writes.
      let flags: UInt64 = i == parts.count - 1 ? 0b10 : 0b01
      unsafe ring.descriptors[i] = Descriptor(
        part.address, UInt64(part.length) | flags << 32 | UInt64(i + 1) << 48)
    }
    ring.publish(from: next, to: next + 1)
  }

  mutating func isDone() -> Bool? {
    let pending = ring.pending(since: next)
    if pending == 0 { return false }
    guard pending == 1, unsafe ixy_load32(ring.usedEntry(next)) == 0 else { return nil }
    next += 1
    return true
  }
}
