/// How a card spreads frames over its receive queues: by a hash of addresses and ports, so that the frames of one
/// flow stay on one queue and in order.
///
/// The lower seven bits of the hash choose an entry of the table, which names the queue. The hash itself is the
/// packet's `hash`; 0 where the card calculated none, as for frames that are not IP: those go to queue 0.
public struct ReceiveSideScaling: Equatable, Sendable {
  /// What is hashed; a card hashes the most that is enabled for a frame, and addresses alone where it has no ports.
  public struct Fields: OptionSet, Sendable {
    /// One bit for each kind.
    public let rawValue: UInt32
    /// These kinds.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Both IPv4 addresses.
    public static let ipv4 = Self(rawValue: 1 << 17)
    /// Addresses and ports of TCP over IPv4.
    public static let tcpIPv4 = Self(rawValue: 1 << 16)
    /// Addresses and ports of UDP over IPv4.
    public static let udpIPv4 = Self(rawValue: 1 << 22)
    /// Both IPv6 addresses.
    public static let ipv6 = Self(rawValue: 1 << 20)
    /// Addresses and ports of TCP over IPv6.
    public static let tcpIPv6 = Self(rawValue: 1 << 21)
    /// Addresses and ports of UDP over IPv6.
    public static let udpIPv6 = Self(rawValue: 1 << 23)
    /// Everything.
    ///
    /// Fragments have no ports: with UDP, those of one flow may be on another queue than the rest.
    public static let all: Self = [.ipv4, .tcpIPv4, .udpIPv4, .ipv6, .tcpIPv6, .udpIPv6]
    /// Addresses alone: fragments stay with their flow, and so do all flows of two hosts.
    public static let addresses: Self = [.ipv4, .ipv6]
  }

  /// The number of entries of the table.
  public static let tableSize = 128
  /// The number of bytes of the key.
  public static let keySize = 40

  /// The key whose hashes are published for verification.
  public static let publishedKey: [UInt8] = [
    0x6D, 0x5A, 0x56, 0xDA, 0x25, 0x5B, 0x0E, 0xC2, 0x41, 0x67, 0x25, 0x3D, 0x43, 0xA3, 0x8F, 0xB0,
    0xD0, 0xCA, 0x2B, 0xCB, 0xAE, 0x7B, 0x30, 0xB4, 0x77, 0xCB, 0x2D, 0xA3, 0x80, 0x30, 0xF2, 0x0C,
    0x6A, 0x42, 0xB7, 0x3B, 0xBE, 0xAC, 0x01, 0xFA,
  ]
  /// A key with which both directions of a flow have the same hash: it repeats after 16 bits, so that exchanging
  /// the two addresses and the two ports exchanges equal parts of it.
  ///
  /// It spreads less well: hashes of 32 bits have only 16 bits of variety.
  public static let symmetricKey = [UInt8]((0..<20).flatMap { _ in [0x6D, 0x5A] as [UInt8] })

  /// The key of the hash, 40 bytes.
  public var key = publishedKey
  /// What is hashed.
  public var fields = Fields.all
  /// The queue for each value of the hash's lower seven bits.
  public var table: [Int]

  /// The same share for each of some queues, with the published key.
  public init(queues: Int) {
    precondition(queues > 0, "no queue to spread over")
    table = (0..<Self.tableSize).map { $0 % queues }
  }

  /// The hash of some bytes, as cards calculate it: source and target address, then source and target port, each in
  /// the order in which they go over the wire.
  ///
  /// - Parameter input: At most 36 bytes.
  /// - Returns: For every set bit of the input, the 32 bits of the key from there on, added without carry.
  public func hash(of input: some Sequence<UInt8>) -> UInt32 {
    var window = key.prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    var sum: UInt32 = 0
    for (i, byte) in input.enumerated() {
      let following = i + 4 < key.count ? key[i + 4] : 0
      for bit in (0..<8).reversed() {
        if byte >> UInt8(bit) & 1 == 1 { sum ^= window }
        window = window << 1 | UInt32(following >> UInt8(bit) & 1)
      }
    }
    return sum
  }
}

/// A card that spreads frames over its receive queues.
///
/// Opened by `openDevice` with several receive queues, it spreads over all that its table can name.
public protocol FrameSpreader: EthernetDevice {
  /// The queues that its table can name: this many, from 0.
  var spreadableQueues: Int { get }
  /// Sets key, fields and table: before the first receive queue is taken.
  ///
  /// - Parameter scaling: What is hashed, and where frames go.
  /// - Throws: `DeviceError.refused` when the card cannot do it, or receives already.
  func setReceiveSideScaling(_ scaling: ReceiveSideScaling) throws(DeviceError)
}

extension FrameSpreader {
  /// Refuses what cannot be: another size of key or table, queues that are not there, fields that the card lacks.
  func require(_ scaling: ReceiveSideScaling, fields: ReceiveSideScaling.Fields, isReceiving: Bool)
    throws(DeviceError)
  {
    let tried = "Spread the frames of \(name)"
    if isReceiving {
      throw .refused(
        tried, found: "it receives already",
        advice: "Do it before the first receive queue is taken.")
    }
    guard scaling.key.count == ReceiveSideScaling.keySize,
      scaling.table.count == ReceiveSideScaling.tableSize
    else {
      throw .refused(
        tried, found: "a key of \(scaling.key.count) bytes, a table of \(scaling.table.count)",
        advice: "They have 40 bytes and 128 entries.")
    }
    let most = min(spreadableQueues, queueCounts.receive)
    if let queue = scaling.table.first(where: { !(0..<most ~= $0) }) {
      throw .refused(
        tried, found: "the table names queue \(queue)",
        advice: "There are \(queueCounts.receive), of which the card can name \(spreadableQueues).")
    }
    if !scaling.fields.isSubset(of: fields) {
      throw .refused(
        tried, found: "it cannot hash all of these fields", advice: "Leave those of UDP out.")
    }
  }
}

extension ReceiveSideScaling {
  /// The key as ten little-endian register words.
  var keyWords: [UInt32] { Self.words(key) }

  /// The table as 32 little-endian register words; `entry` says what stands in it for a queue.
  func tableWords(_ entry: (Int) -> UInt8) -> [UInt32] { Self.words(table.map(entry)) }

  private static func words(_ bytes: [UInt8]) -> [UInt32] {
    stride(from: 0, to: bytes.count, by: 4).map { i in
      (0..<4).reduce(0) { $0 | UInt32(bytes[i + $1]) << (8 * UInt32($1)) }
    }
  }
}
