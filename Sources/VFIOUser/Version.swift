import Glibc

/// What one side can take, as it says in its VERSION message (reference vfio-user.md, §2).
struct Capabilities: Equatable {
  /// Descriptors in one message.
  ///
  /// QEMU takes 8 where a server does not say.
  var maxFiles = 8
  /// Bytes in one region access.
  var maxData = Message.maxData
  /// Whether REGION_WRITE_MULTI is understood.
  var writesMultiple = false

  /// What our own ends can take.
  static let ours = Capabilities(
    maxFiles: Message.maxFiles, maxData: Message.maxData, writesMultiple: true)

  init(maxFiles: Int = 8, maxData: Int = Message.maxData, writesMultiple: Bool = false) {
    self.maxFiles = maxFiles
    self.maxData = maxData
    self.writesMultiple = writesMultiple
  }

  /// Reads JSON with its closing NUL.
  ///
  /// What is absent or unknown keeps its default; no bytes at all do, too.
  init(json bytes: ArraySlice<UInt8>) throws(Refusal) {
    self.init()
    if bytes.isEmpty { return }
    guard bytes.last == 0 else { throw Refusal("its capabilities do not end with NUL") }
    guard let json = JSON(parsing: bytes.dropLast()), case .object = json else {
      throw Refusal("its capabilities are not a JSON object")
    }
    guard let members = json["capabilities"] else { return }
    guard case .object = members else { throw Refusal("its capabilities are not an object") }
    maxFiles = try Self.count(members["max_msg_fds"], "max_msg_fds") ?? maxFiles
    maxData = try Self.count(members["max_data_xfer_size"], "max_data_xfer_size") ?? maxData
    if let value = members["write_multiple"] {
      guard case .bool(let flag) = value else { throw Refusal("its write_multiple is no boolean") }
      writesMultiple = flag
    }
  }

  private static func count(_ value: JSON?, _ name: String) throws(Refusal) -> Int? {
    guard let value else { return nil }
    guard case .number(let number) = value else { throw Refusal("its \(name) is no count") }
    return Int(min(number, UInt64(Int32.max)))
  }

  /// JSON with its closing NUL, all of it.
  var json: [UInt8] {
    let members =
      "\"max_msg_fds\":\(maxFiles),\"max_data_xfer_size\":\(maxData),"
      + "\"max_dma_maps\":\(DMAMappings.maxCount),\"write_multiple\":\(writesMultiple)"
    return Array("{\"capabilities\":{\(members)}}".utf8) + [0]
  }

  /// The most important capabilities that fit into `room` bytes.
  ///
  /// QEMU receives the reply into the buffer of its own request, and gives up when it is longer.
  func json(room: Int) -> [UInt8] {
    let choices = [
      json, Array("{\"capabilities\":{\"max_msg_fds\":\(maxFiles)}}".utf8) + [0],
      Array("{}".utf8) + [0],
    ]
    return choices.first { $0.count <= room } ?? []
  }
}

/// The payload of VERSION, in both directions.
struct Version {
  /// The only version of the protocol that there is.
  static let major: UInt16 = 0
  static let minor: UInt16 = 0

  var capabilities: Capabilities
  /// Bytes of JSON that came, NUL included: a reply must not be longer.
  var jsonSize: Int

  init(payload: [UInt8]) throws(Refusal) {
    var fields = Fields(payload)
    let (major, _) = (try fields.take(UInt16.self), try fields.take(UInt16.self))
    guard major == Self.major else { throw Refusal("version \(major) of the protocol is not ours") }
    capabilities = try Capabilities(json: fields.rest)
    jsonSize = fields.rest.count
  }

  /// The payload that goes with some JSON.
  static func payload(json: [UInt8]) -> [UInt8] {
    var payload: [UInt8] = []
    payload.append(field: major)
    payload.append(field: minor)
    return payload + json
  }
}
