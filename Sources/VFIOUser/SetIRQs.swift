/// A SET_IRQS message (reference vfio-user.md, §5).
struct SetIRQs {
  /// What to do with the vectors.
  enum Action: UInt32 {
    case mask = 0b001
    case unmask = 0b010
    case trigger = 0b100
  }

  /// What comes with the message, for each vector.
  enum Data: UInt32 {
    case none = 0b001
    case bool = 0b010
    case eventFD = 0b100
  }

  /// Bytes before the data.
  static let headerSize = 20

  var index: Int
  var start: Int
  var count: Int
  var action: Action
  var data: Data
  /// For `bool`: whether each vector is meant.
  var flags: [Bool]

  init(payload: [UInt8]) throws(Refusal) {
    var fields = Fields(payload)
    let argsz = try fields.take(UInt32.self)
    let flags = try fields.take(UInt32.self)
    index = Int(try fields.take(UInt32.self))
    start = Int(try fields.take(UInt32.self))
    count = Int(try fields.take(UInt32.self))
    guard argsz >= Self.headerSize, flags >> 6 == 0, let data = Data(rawValue: flags & 0b111),
      let action = Action(rawValue: flags >> 3)
    else { throw Refusal("flags \(String(flags, radix: 16)) are not one action with one type") }
    self.data = data
    self.action = action
    self.flags = fields.rest.prefix(data == .bool ? count : 0).map { $0 != 0 }
    guard data != .bool || self.flags.count == count else { throw Refusal("it is too short") }
  }

  /// The payload of a message of ours, with nothing behind it.
  init(_ action: Action, _ data: Data, index: Int, start: Int, count: Int) {
    (self.action, self.data, self.index) = (action, data, index)
    (self.start, self.count, flags) = (start, count, [])
  }

  var payload: [UInt8] {
    [UInt8](
      words: UInt32(Self.headerSize), data.rawValue | action.rawValue << 3, UInt32(index),
      UInt32(start), UInt32(count))
  }
}
