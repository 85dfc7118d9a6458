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
  /// The driver has taken back all descriptors that the card was done with.
  var collected: Bool?
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
  private let map: RegisterMap
  private var bar: BAR?
  private var records: [(step: TraceStep, callers: [UInt], value: UInt32)] = []
  /// The receive and the transmit ring, where the card has them as Intel's have.
  private var rings: [ObservedRing] = []
  /// Whether the rings are looked at.
  var showsRings = false

  /// A ring, and what was in it at the last look.
  private struct ObservedRing {
    let registers: RingRegisters
    var last: [String] = []
    var head = 0
    var tail = 0
  }

  /// Collects what a driver does to a device.
  init(_ device: TracingDevice, driver: String) throws(DeviceError) {
    self.device = device
    map = try RegisterMap(of: driver, device)
    if let receive = RingRegisters(receive: 0, of: driver),
      let transmit = RingRegisters(transmit: 0, of: driver)
    {
      rings = [ObservedRing(registers: receive), ObservedRing(registers: transmit)]
    }
    device.onAccess = { [unowned self] in add($0) }
  }

  /// Whether the rings can be looked at.
  var knowsRings: Bool { !rings.isEmpty }

  /// Adds a sentence.
  func note(_ text: String, collected: Bool? = nil) {
    append(TraceStep(kind: "note", text: text, collected: collected), [], 0)
  }

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
    let found = map.find(bar: record.bar, record.offset)
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
      value: "0x" + hex(Int(record.value), 2 * record.width),
      fields: found?.register.describe(
        record.value, was: record.isWrite ? record.before : nil),
      section: found.map { map.section(of: $0.register) })
    append(step, record.callers, record.value)
  }

  private func append(_ step: TraceStep, _ callers: [UInt], _ value: UInt32) {
    var step = step
    if showsRings, knowsRings {
      step.rx = look(0)
      step.tx = look(1)
    }
    records.append((step, callers, value))
  }

  /// What changed in a ring since the last look; nil when nothing did.
  private func look(_ ring: Int) -> RingChange? {
    let last = rings[ring]
    let registers = last.registers
    let size = Int(device.lastValue(registers.length)) / 16
    let (low, high) = registers.address
    let iova = UInt64(device.lastValue(low)) | UInt64(device.lastValue(high)) << 32
    if bar == nil { bar = try? device.inner.bar(0) }
    guard size > 0, let bar else { return nil }
    let bytes = device.read(iova, count: size * 16)
    guard bytes.count == size * 16 else { return nil }
    let now = stride(from: 0, to: bytes.count, by: 16).map { start in
      bytes[start..<start + 16].map { hex(Int($0), 2) }.joined()
    }
    let head = Int(truncatingIfNeeded: bar.read(registers.head, width: 4))
    let tail = Int(device.lastValue(registers.tail))
    let changed = now.indices.filter { last.last.isEmpty || now[$0] != last.last[$0] }
    if changed.isEmpty, head == last.head, tail == last.tail { return nil }
    rings[ring] = ObservedRing(registers: registers, last: now, head: head, tail: tail)
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
