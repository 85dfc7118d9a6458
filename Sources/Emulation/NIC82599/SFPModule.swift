/// The pluggable module's memory behind two bit-banged wires (initialization reference, section 6).
///
/// Both wires are open drain: a line is up when nobody pulls it down. A change of the data line while the
/// clock is up starts (down) or stops (up) a transfer; bits are taken when the clock goes up.
struct SFPModule {
  private enum Phase { case idle, receiving, sending }

  /// The address of the module's memory, without the read bit.
  private static let address: UInt8 = 0xA0
  private let memory: [UInt8]

  private var clock = true
  private var data = true
  /// The module pulls the data line down.
  private(set) var pullsData = false

  private var phase = Phase.idle
  private var bits = 0
  private var shift: UInt8 = 0
  private var bytesReceived = 0
  private var isAcknowledging = false
  private var isAcknowledged = false
  private var isRead = false
  private var place: UInt8 = 0

  init() { memory = Self.content() }

  /// An optical 10GBASE-SR module.
  private static func content() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 256)
    func put(_ text: String, at place: Int, count: Int) {
      let padded = Array(text.utf8) + [UInt8](repeating: 0x20, count: count)
      bytes.replaceSubrange(place..<place + count, with: padded.prefix(count))
    }
    bytes[0x00] = 3  // SFP or SFP+
    bytes[0x01] = 4  // two-wire interface
    bytes[0x02] = 7  // LC connector
    bytes[0x03] = 0x10  // 10GBASE-SR
    bytes[0x0B] = 6  // 64B/66B
    bytes[0x0C] = 103  // 10.3 Gb/s
    bytes[0x10] = 8  // 80 m of 50 µm fibre, in units of 10 m
    bytes[0x11] = 3  // 30 m of 62.5 µm
    bytes[0x13] = 30  // 300 m of OM3
    put("Emulated", at: 0x14, count: 16)
    bytes.replaceSubrange(0x25..<0x28, with: [0x00, 0x1B, 0x21])  // Intel
    put("IXY-SFP-SR", at: 0x28, count: 16)
    put("1", at: 0x38, count: 4)
    bytes[0x3C] = 0x03  // 850 nm
    bytes[0x3D] = 0x52
    bytes[0x3F] = bytes[0..<0x3F].reduce(0, &+)
    put("1", at: 0x44, count: 16)
    bytes[0x5F] = bytes[0x40..<0x5F].reduce(0, &+)
    return bytes
  }

  /// The host sets its ends of both lines.
  mutating func drive(clock newClock: Bool, data newData: Bool) {
    if clock && newClock && data != newData {
      if newData { stop() } else { start() }
    }
    if clock && !newClock { clockFell() }
    data = newData
    if !clock && newClock { clockRose() }
    clock = newClock
  }

  private mutating func start() {
    (phase, bits, shift, bytesReceived) = (.receiving, 0, 0, 0)
    (isAcknowledging, pullsData) = (false, false)
  }

  private mutating func stop() { (phase, pullsData, isAcknowledging) = (.idle, false, false) }

  private mutating func clockRose() {
    switch phase {
    case .idle: break
    case .receiving:
      if !isAcknowledging, bits < 8 {
        shift = shift << 1 | (data ? 1 : 0)
        bits += 1
      }
    case .sending:
      bits += 1
      if bits == 9 { isAcknowledged = !data }
    }
  }

  private mutating func clockFell() {
    switch phase {
    case .idle: break
    case .receiving: receivedBit()
    case .sending:
      if bits == 9 {
        if isAcknowledged { loadByte() } else { stop() }
      } else if bits == 8 {
        pullsData = false  // the host acknowledges
      } else if bits > 0 {
        sendBit()
      }
    }
  }

  private mutating func receivedBit() {
    if isAcknowledging {
      (isAcknowledging, pullsData, bits) = (false, false, 0)
      if bytesReceived == 1, isRead {
        phase = .sending
        loadByte()
      }
    } else if bits == 8 {
      guard take(shift) else { return stop() }
      (isAcknowledging, pullsData) = (true, true)
    }
  }

  /// Takes a byte that came whole; false when it is not for this module.
  private mutating func take(_ byte: UInt8) -> Bool {
    bytesReceived = min(bytesReceived + 1, 3)
    switch bytesReceived {
    case 1:
      isRead = byte & 1 != 0
      return byte & 0xFE == Self.address
    case 2: place = byte
    default: break  // its memory is read only
    }
    return true
  }

  private mutating func loadByte() {
    shift = memory[Int(place)]
    place &+= 1
    bits = 0
    sendBit()
  }

  private mutating func sendBit() {
    pullsData = shift & 0x80 == 0
    shift <<= 1
  }
}
