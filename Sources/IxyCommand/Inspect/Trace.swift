import Ixy

/// What happened between a driver and its card, step by step.
struct TraceStep: Encodable {
  /// "note", "read" or "write".
  var kind: String
  /// What a note says; of a register, its long name.
  var text: String
  var register: String?
  var offset: String?
  var value: String?
  /// The fields that are not 0, or that changed since the driver last saw the register.
  var fields: String?
  /// Where the datasheet has the register.
  var section: String?
  /// The line of the driver that did it.
  var line: String?
  /// How often the same was read.
  var times: Int?
  /// What changed in the receive and the transmit ring since the step before.
  var rx: RingChange?
  var tx: RingChange?
}

/// What changed in a ring.
struct RingChange: Encodable {
  /// How many descriptors it has.
  var size: Int
  /// The next descriptor that the card will use.
  var head: Int
  /// The first that the card may not use.
  var tail: Int
  /// Descriptors that changed: their numbers, and their 16 bytes in hexadecimal.
  var changed: [Descriptor]

  struct Descriptor: Encodable {
    var number: Int
    var bytes: String
  }
}

/// Collects the steps of a card that is traced.
final class Trace {
  private let device: TracingDevice
  private var bar: BAR?
  private var records: [(step: TraceStep, callers: [UInt], value: UInt32)] = []
  /// The offsets of the ring registers, and what was in the ring at the last look.
  private var rings: [(registers: Int, last: [String], head: Int, tail: Int)] = [
    (0x01000, [], 0, 0), (0x06000, [], 0, 0),
  ]
  /// Whether the rings are looked at.
  var showsRings = false

  init(_ device: TracingDevice) {
    self.device = device
    device.onAccess = { [unowned self] in add($0) }
  }

  /// Adds a sentence.
  func note(_ text: String) { append(TraceStep(kind: "note", text: text), [], 0) }

  /// The steps, each access with the driver's line.
  func steps() -> [TraceStep] {
    let lines = DriverLines(of: Set(records.flatMap(\.callers)))
    var steps = records.map(\.step)
    for i in steps.indices where steps[i].kind != "note" {
      let last = i > 0 ? steps[i - 1] : nil
      // A read and a write of one register are one line of the driver; of the write the compiler has none.
      let isChange = steps[i].kind == "write" && last?.kind == "read"
      steps[i].line =
        isChange && last?.register == steps[i].register
        ? last?.line : lines.line(of: records[i].callers)
    }
    return steps
  }

  private func add(_ record: RegisterAccessRecord) {
    let found = record.bar == 0 ? RegisterName.find(record.offset) : nil
    let offset = "0x" + hex(record.offset, 5)
    // The same again is a driver that waits.
    if !record.isWrite, let last = records.last, last.step.kind == "read",
      last.step.offset == offset, last.value == record.value
    {
      records[records.count - 1].step.times = (last.step.times ?? 1) + 1
      return
    }
    let step = TraceStep(
      kind: record.isWrite ? "write" : "read", text: found?.register.title ?? "",
      register: found?.name ?? "register \(offset)", offset: offset,
      value: "0x" + hex(Int(record.value), 8),
      fields: found?.register.describe(
        record.value, was: record.isWrite ? record.before : nil),
      section: found?.register.section)
    append(step, record.callers, record.value)
  }

  private func append(_ step: TraceStep, _ callers: [UInt], _ value: UInt32) {
    var step = step
    if showsRings {
      step.rx = look(0)
      step.tx = look(1)
    }
    records.append((step, callers, value))
  }

  /// What changed in a ring since the last look; nil when nothing did.
  private func look(_ ring: Int) -> RingChange? {
    let base = rings[ring].registers
    let size = Int(device.lastValue(base + 0x08)) / 16
    let iova =
      UInt64(device.lastValue(base)) | UInt64(device.lastValue(base + 0x04)) << 32
    if bar == nil { bar = try? device.inner.bar(0) }
    guard size > 0, let bar else { return nil }
    let bytes = device.read(iova, count: size * 16)
    guard bytes.count == size * 16 else { return nil }
    let now = stride(from: 0, to: bytes.count, by: 16).map { start in
      bytes[start..<start + 16].map { hex(Int($0), 2) }.joined()
    }
    let head = Int(truncatingIfNeeded: bar.read(base + 0x10, width: 4))
    let tail = Int(device.lastValue(base + 0x18))
    let last = rings[ring]
    let changed = now.indices.filter { last.last.isEmpty || now[$0] != last.last[$0] }
    if changed.isEmpty, head == last.head, tail == last.tail { return nil }
    rings[ring] = (base, now, head, tail)
    return RingChange(
      size: size, head: head, tail: tail,
      changed: changed.map { .init(number: $0, bytes: now[$0]) })
  }
}

extension TraceStep {
  /// The step as lines of text; `number` is its place among the accesses.
  func lines(number: Int) -> [String] {
    if kind == "note" { return ["", "-- " + text] + ringLines }
    let columns = [
      (String(number), 4), (kind, 5), (register ?? "", 12), (offset ?? "", 7), (value ?? "", 10),
      (section ?? "", 10), (line ?? "", 28),
    ]
    var text = columns.map { $0.0.padded($0.1) }.joined(separator: "  ")
    text += "  " + (fields ?? "")
    if let times { text += "  (\(times) times)" }
    return [text.trimmed] + ringLines
  }

  private var ringLines: [String] {
    [("rx", rx), ("tx", tx)].flatMap { name, ring -> [String] in
      guard let ring else { return [] }
      let shown = ring.changed.prefix(4).map { "        descriptor \($0.number): \($0.bytes)" }
      let rest = ring.changed.count - shown.count
      return ["      \(name) ring of \(ring.size): head \(ring.head), tail \(ring.tail)"] + shown
        + (rest > 0 ? ["        and \(rest) more"] : [])
    }
  }
}

extension String {
  /// With spaces behind it, up to a width.
  func padded(_ width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }

  /// Without the spaces at its end.
  var trimmed: String { String(reversed().drop { $0 == " " }.reversed()) }
}
