import Glibc

/// The commands of the protocol (reference vfio-user.md, §1).
enum Command: UInt16 {
  case version = 1
  case mapDMA = 2
  case unmapDMA = 3
  case deviceInfo = 4
  case regionInfo = 5
  case regionIOFDs = 6
  case irqInfo = 7
  case setIRQs = 8
  case regionRead = 9
  case regionWrite = 10
  /// From server to client only, for memory that came without a file.
  case readDMA = 11
  case writeDMA = 12
  case reset = 13
  case dirtyPages = 14
  case regionWriteMulti = 15
  case deviceFeature = 16
  case readMigrationData = 17
  case writeMigrationData = 18
}

/// One message: what the 16 bytes of header say, and the payload behind them.
struct Message {
  /// Bytes of a header.
  static let headerSize = 16
  /// The most data in one region access; what both sides assume when nobody names another limit.
  static let maxData = 1 << 20
  /// The longest message that is taken: that data, its header and its region's address.
  static let maxSize = headerSize + 64 + maxData
  /// The descriptors that one message may carry: as many as QEMU allows, and as `CIxy` has room for.
  static let maxFiles = 16

  /// What kind of message it is.
  struct Flags: OptionSet {
    let rawValue: UInt32
    static let reply = Self(rawValue: 1)
    static let noReply = Self(rawValue: 0x10)
    static let error = Self(rawValue: 0x20)
    /// The type's four bits: 0 is a command, 1 a reply, anything else nothing.
    static let type = Self(rawValue: 0xF)
  }

  /// Chosen by who sends a command, repeated in the reply.
  var id: UInt16
  /// The number of a `Command`, or one that we do not know.
  var command: UInt16
  var flags: Flags
  /// An errno, in replies with the error flag.
  var error: UInt32 = 0
  var payload: [UInt8] = []

  var isCommand: Bool { flags.isDisjoint(with: .type) }
  var isReply: Bool { flags.intersection(.type) == .reply }

  init(id: UInt16, command: Command, flags: Flags = [], payload: [UInt8] = []) {
    self.id = id
    self.command = command.rawValue
    self.flags = flags
    self.payload = payload
  }

  /// The answer to a command.
  init(replyTo command: Message, payload: [UInt8] = [], error: Int32? = nil) {
    id = command.id
    self.command = command.command
    flags = error == nil ? .reply : [.reply, .error]
    self.error = UInt32(bitPattern: error ?? 0)
    self.payload = payload
  }

  /// A message from all of its bytes.
  init(bytes: ArraySlice<UInt8>) throws(Refusal) {
    var fields = Fields(bytes)
    id = try fields.take()
    command = try fields.take()
    _ = try fields.take(UInt32.self)
    flags = Flags(rawValue: try fields.take())
    error = try fields.take()
    payload = Array(fields.rest)
  }

  /// Header and payload, as they go over the socket.
  var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.headerSize + payload.count)
    bytes.append(field: id)
    bytes.append(field: command)
    bytes.append(field: UInt32(Self.headerSize + payload.count))
    bytes.append(field: flags.rawValue)
    bytes.append(field: error)
    bytes += payload
    return bytes
  }

  /// The size that 16 bytes of header name, unchecked.
  static func size(inHeader header: [UInt8]) -> Int { Int(number(in: header[4..<8])) }
}

/// Why a message is not obeyed: the errno that its sender gets, and the reason in words.
struct Refusal: Error {
  var errno: Int32
  var reason: String

  init(_ errno: Int32, _ reason: String) {
    self.errno = errno
    self.reason = reason
  }

  /// The message makes no sense.
  init(_ reason: String) { self.init(EINVAL, reason) }
}

/// Takes numbers off the front of a message's bytes.
///
/// The protocol has the byte order of the machine, which is little endian wherever Swift runs on Linux.
struct Fields {
  private(set) var rest: ArraySlice<UInt8>

  init(_ bytes: ArraySlice<UInt8>) { rest = bytes }
  init(_ bytes: [UInt8]) { rest = bytes[...] }

  /// The next field, of the type that the caller asks for; a refusal when there are not enough bytes left.
  mutating func take<Number: FixedWidthInteger>(_ type: Number.Type = Number.self)
    throws(Refusal) -> Number
  {
    let size = MemoryLayout<Number>.size
    guard rest.count >= size else { throw Refusal("it is too short") }
    defer { rest = rest.dropFirst(size) }
    return Number(truncatingIfNeeded: number(in: rest.prefix(size)))
  }
}

/// The little-endian number in up to eight bytes.
func number(in bytes: ArraySlice<UInt8>) -> UInt64 {
  bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
}

extension [UInt8] {
  /// Appends a number in the byte order of the machine.
  mutating func append<Number: FixedWidthInteger>(field value: Number) {
    append(number: UInt64(truncatingIfNeeded: value), width: MemoryLayout<Number>.size)
  }

  /// Appends the low `width` bytes of a number.
  mutating func append(number value: UInt64, width: Int) {
    for byte in 0..<width { append(UInt8(truncatingIfNeeded: value >> UInt64(8 * byte))) }
  }

  /// The numbers one after another, 32 bits each.
  init(words: UInt32...) {
    self = []
    for word in words { append(field: word) }
  }
}
