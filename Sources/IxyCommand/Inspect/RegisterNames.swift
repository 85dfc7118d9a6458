/// A register, for people: its names, where the datasheet has it, and its fields.
struct RegisterName {
  /// The datasheet's acronym.
  let name: String
  let title: String
  let offset: Int
  let count: Int
  let stride: Int
  /// The bytes of each.
  let width: Int
  /// The section of the datasheet; empty where no source of ours gives it.
  let section: String
  /// A read clears or sets something: it is shown when a driver reads it, and never read for show.
  let changesWhenRead: Bool
  let fields: [Field]

  /// Some bits of a register.
  struct Field {
    let name: String
    let bits: ClosedRange<Int>

    /// What they hold.
    func value(in register: UInt32) -> UInt32 {
      let width = UInt32(bits.upperBound - bits.lowerBound)
      return register >> UInt32(bits.lowerBound) & (.max >> (31 - width))
    }
  }

  /// A register, or `count` of them; `fields` is as in "0 RXEN, 19:10 SIZE".
  init(
    _ offset: Int, _ name: String, _ title: String, _ fields: String = "", section: String = "",
    count: Int = 1, stride: Int = 4, width: Int = 4, changesWhenRead: Bool = false
  ) {
    self.name = name
    self.title = title
    self.offset = offset
    self.count = count
    self.stride = stride
    self.width = width
    self.section = section
    self.changesWhenRead = changesWhenRead
    self.fields = fields.split(separator: ", ").compactMap { field in
      let words = field.split(separator: " ")
      let ends = words[0].split(separator: ":").compactMap { Int($0) }
      guard words.count == 2, let high = ends.first, let low = ends.last else { return nil }
      return Field(name: String(words[1]), bits: low...high)
    }
  }

  /// The fields that are not 0, or that differ between two values: `ENABLE 1, PTHRESH 36`.
  func describe(_ value: UInt32, was old: UInt32? = nil) -> String {
    let shown = fields.filter { field in
      old.map { field.value(in: $0) != field.value(in: value) } ?? (field.value(in: value) != 0)
    }
    return shown.map { field in
      let before = old.map { "\(field.value(in: $0))→" } ?? ""
      return "\(field.name) \(before)\(field.value(in: value))"
    }.joined(separator: ", ")
  }

  /// The name of one of them: `CTRL`, `RDT[0]`.
  func name(_ index: Int) -> String {
    // The second bank of the 82599's receive queues begins with queue 64.
    let first = (0xD000..<0xE000).contains(offset) ? 64 : 0
    return count > 1 ? "\(name)[\(first + index)]" : name
  }
}
