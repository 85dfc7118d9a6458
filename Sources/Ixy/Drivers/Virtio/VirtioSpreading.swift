private typealias Field = VirtioNetConfiguration

/// How the device spreads frames over its receive queues, where it lets the driver say so (RSS).
struct VirtioSpreading {
  /// The fields that are hashed: IPv4, TCP and UDP over it (bits 2:0), and the same for IPv6 (bits 5:3).
  let types: UInt32
  /// The queue for each value of the hash's lowest bits; a power of two.
  let table: [UInt16]
  let queues: Int

  /// The same share for each queue.
  init(queues: Int, _ transport: any VirtioTransport) {
    types = UInt32(truncatingIfNeeded: transport.configuration(Field.hashTypes) & 0x3F)
    table = (0..<128).map { UInt16($0 % queues) }
    self.queues = queues
  }

  /// Whether the device has room for our key and table; it must have.
  static func isPossible(_ transport: any VirtioTransport) -> Bool {
    transport.configuration(Field.maximumKeySize) >= ReceiveSideScaling.publishedKey.count
      && transport.configuration(Field.maximumTable) >= 128
  }

  /// The command's data: fields, the table's mask, the queue of frames without a hash, the table, the number
  /// of transmit queues, and the key.
  var bytes: [UInt8] {
    littleEndian(types) + littleEndian(UInt16(table.count - 1)) + littleEndian(UInt16(0))
      + table.flatMap(littleEndian) + littleEndian(UInt16(queues))
      + [UInt8(ReceiveSideScaling.publishedKey.count)] + ReceiveSideScaling.publishedKey
  }
}
