import Ixy
import Testing

@testable import Emulation

/// The two engines over plain memory, with a driver's hands on registers and descriptors.
final class EngineRig {
  static let base: UInt64 = 0x40_0000
  static let size = 4 << 20
  static let mac: [UInt8] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55]

  let registers: RegisterFile
  let dma = DMATable()
  let interrupts = InterruptUnit()
  let statistics: PortStatistics
  let receiver: ReceiveEngine
  let transmitter: TransmitEngine
  let wire = TestWire()
  let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)

  /// Both engines are on, with reset values and own address; no queue is enabled.
  init() throws {
    registers = try RegisterFile()
    statistics = PortStatistics(registers: registers)
    receiver = ReceiveEngine(
      registers: registers, dma: dma, statistics: statistics, interrupts: interrupts)
    transmitter = TransmitEngine(
      registers: registers, dma: dma, statistics: statistics, interrupts: interrupts,
      receiver: receiver)
    memory.initializeMemory(as: UInt8.self, repeating: 0xEE, count: Self.size)
    try dma.map(iova: Self.base, size: Self.size, base: memory, isWritable: true)
    registers[0x04240] = 0x0801_2C0B  // HLREG0
    registers[0x04268] = 1518 << 16  // MAXFRS
    registers[0x05088] = 0x8100  // VLNCTRL
    registers[0x05080] = 1 << 10  // FCTRL: BAM
    registers[0x03000] = 1  // RXCTRL
    registers[0x04A80] = 0x8100_0005  // DMATXCTL
    registers[0x04A88] = 0x0FF6_0FF6  // DTXTCPFLGL
    registers[0x04A8C] = 0x0F7F  // DTXTCPFLGH
    setAddress(0, Self.mac)
  }

  deinit { memory.deallocate() }

  // MARK: Memory

  subscript(iova: UInt64) -> UInt64 {
    get { memory.load(fromByteOffset: Int(iova - Self.base), as: UInt64.self) }
    set { memory.storeBytes(of: newValue, toByteOffset: Int(iova - Self.base), as: UInt64.self) }
  }

  func bytes(_ iova: UInt64, _ count: Int) -> [UInt8] {
    [UInt8](UnsafeRawBufferPointer(start: memory + Int(iova - Self.base), count: count))
  }

  func put(_ bytes: [UInt8], at iova: UInt64) {
    (memory + Int(iova - Self.base)).copyMemory(from: bytes, byteCount: bytes.count)
  }

  // MARK: Registers

  func set(_ register: Int, _ value: UInt32) {
    registers[register] = value
    receiver.configurationChanged()
    transmitter.configurationChanged()
  }

  /// Reads a statistics register and clears it.
  func take(_ register: Int) -> UInt32 {
    statistics.flush()
    defer { registers[register] = 0 }
    return registers[register]
  }

  func setAddress(_ index: Int, _ mac: [UInt8]) {
    let low = mac[0..<4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    set(0x0A200 + 8 * index, low)
    set(0x0A204 + 8 * index, UInt32(mac[4]) | UInt32(mac[5]) << 8 | 1 << 31)
  }

  // MARK: Receive

  static func receiveBank(_ queue: Int) -> Int {
    queue < 64 ? 0x1000 + 0x40 * queue : 0xD000 + 0x40 * (queue - 64)
  }
  static func receiveRing(_ queue: Int) -> UInt64 { base + UInt64(queue) * 0x1000 }
  static func receiveBuffer(_ queue: Int, _ index: Int) -> UInt64 {
    base + 0x10_0000 + UInt64(queue % 8) * 0x4_0000 + UInt64(index) * 4096
  }

  /// Sets up a ring with a buffer for each descriptor and gives all but one to the card.
  func startReceive(
    _ queue: Int = 0, count: Int = 16, legacy: Bool = false, kilobytes: UInt32 = 2,
    flags: UInt32 = 0, control: UInt32 = 0
  ) {
    let bank = Self.receiveBank(queue)
    for i in 0..<count { rearm(queue, i) }
    registers[bank] = UInt32(truncatingIfNeeded: Self.receiveRing(queue))
    registers[bank + 4] = UInt32(Self.receiveRing(queue) >> 32)
    registers[bank + 8] = UInt32(count * 16)
    registers[bank + 0x10] = 0
    registers[bank + 0x18] = 0
    registers[bank + 0x14] = kilobytes | (legacy ? 0 : 1 << 25) | flags
    registers[bank + 0x28] = 1 << 25 | control
    receiver.enable(queue: queue)
    receiver.setTail(queue: queue, UInt32(count - 1))
  }

  func rearm(_ queue: Int, _ index: Int) {
    self[Self.receiveRing(queue) + UInt64(index) * 16] = Self.receiveBuffer(queue, index)
    self[Self.receiveRing(queue) + UInt64(index) * 16 + 8] = 0
  }

  /// A descriptor that the card has written back.
  func received(_ index: Int, queue: Int = 0) -> Received {
    let at = Self.receiveRing(queue) + UInt64(index) * 16
    return Received(low: self[at], high: self[at + 8])
  }

  func receivedBytes(_ index: Int, _ count: Int, queue: Int = 0) -> [UInt8] {
    bytes(Self.receiveBuffer(queue, index), count)
  }

  func receivedHead(_ queue: Int = 0) -> Int { Int(registers[Self.receiveBank(queue) + 0x10]) }

  /// Gives frames to the card and lets it receive.
  @discardableResult
  func receive(_ frames: [UInt8]..., limit: Int = 64) -> Int {
    wire.incoming += frames
    return receiver.poll(wire, limit: limit)
  }

  // MARK: Transmit

  static func transmitBank(_ queue: Int) -> Int { 0x6000 + 0x40 * queue }
  static func transmitRing(_ queue: Int) -> UInt64 { base + 0x8_0000 + UInt64(queue) * 0x800 }

  /// Where the next descriptor goes.
  var transmitTails = [Int](repeating: 0, count: 128)
  var transmitCounts = [Int](repeating: 0, count: 128)
  private var nextBuffer: UInt64 = base + 0x30_0000

  func startTransmit(_ queue: Int = 0, count: Int = 64, headWriteBack: UInt64? = nil) {
    let bank = Self.transmitBank(queue)
    registers[bank] = UInt32(truncatingIfNeeded: Self.transmitRing(queue))
    registers[bank + 4] = 0
    registers[bank + 8] = UInt32(count * 16)
    registers[bank + 0x10] = 0
    registers[bank + 0x18] = 0
    registers[bank + 0x28] = 1 << 25
    registers[bank + 0x38] = headWriteBack.map { UInt32(truncatingIfNeeded: $0) | 1 } ?? 0
    transmitCounts[queue] = count
    transmitTails[queue] = 0
    transmitter.enable(queue: queue)
  }

  /// Writes a descriptor behind the tail, and its bytes to a buffer; the tail is not published.
  @discardableResult
  func post(
    _ bytes: [UInt8], _ high: UInt64, queue: Int = 0, at address: UInt64? = nil
  ) -> Int {
    let buffer = address ?? nextBuffer
    if address == nil {
      put(bytes, at: buffer)
      nextBuffer += UInt64(bytes.count + 63) & ~63
      if nextBuffer > Self.base + 0x3E_0000 { nextBuffer = Self.base + 0x30_0000 }
    }
    return postRaw(buffer, high | UInt64(bytes.count), queue: queue)
  }

  @discardableResult
  func postRaw(_ low: UInt64, _ high: UInt64, queue: Int = 0) -> Int {
    let index = transmitTails[queue]
    self[Self.transmitRing(queue) + UInt64(index) * 16] = low
    self[Self.transmitRing(queue) + UInt64(index) * 16 + 8] = high
    transmitTails[queue] = (index + 1) % transmitCounts[queue]
    return index
  }

  /// Publishes the tail and lets the card send.
  @discardableResult
  func transmit(_ queue: Int = 0, limit: Int = 256) -> Int {
    transmitter.setTail(queue: queue, UInt32(transmitTails[queue]))
    return transmitter.poll(wire, limit: limit)
  }

  func isDone(_ index: Int, queue: Int = 0) -> Bool {
    self[Self.transmitRing(queue) + UInt64(index) * 16 + 8] >> 32 & 1 != 0
  }

  func transmitHead(_ queue: Int = 0) -> Int { Int(registers[Self.transmitBank(queue) + 0x10]) }
}

/// A receive descriptor after its write-back, in both forms.
struct Received {
  var low: UInt64
  var high: UInt64

  var packetType: UInt32 { UInt32(low & 0x1FFF0) }
  var rssType: UInt32 { UInt32(low & 0xF) }
  var detail: UInt32 { UInt32(low >> 32) }
  var status: UInt32 { UInt32(truncatingIfNeeded: high) }
  var length: Int { Int(high >> 32 & 0xFFFF) }
  var tag: UInt16 { UInt16(high >> 48) }
  var isDone: Bool { status & 1 != 0 }
  var isLast: Bool { status & 2 != 0 }

  var legacyLength: Int { Int(high & 0xFFFF) }
  var legacyStatus: UInt8 { UInt8(high >> 32 & 0xFF) }
  var legacyErrors: UInt8 { UInt8(high >> 40 & 0xFF) }
}

/// Commands of transmit descriptors.
enum Command {
  static let legacy: UInt64 = 1 << 24 | 1 << 25
  static let advanced: UInt64 = 1 << 24 | 1 << 25 | 1 << 29 | 3 << 20
  static let more: UInt64 = 1 << 25 | 1 << 29 | 3 << 20
  static let context: UInt64 = 1 << 29 | 2 << 20
  static let rs: UInt64 = 1 << 27
  static let vle: UInt64 = 1 << 30
  static let tse: UInt64 = 1 << 31
  static let ixsm: UInt64 = 1 << 40
  static let txsm: UInt64 = 1 << 41
}

/// A wire with two queues.
final class TestWire: Wire {
  var incoming: [[UInt8]] = []
  var outgoing: [[UInt8]] = []
  var waitsForDescriptors = true
  /// How many more frames it takes.
  var room = Int.max
  private var current: UnsafeMutableRawBufferPointer?

  let kind = "test"
  let isConnected = true
  let readiness: Int32? = nil
  var canSend: Bool { room > 0 }
  var counts = WireCounts()

  deinit { current?.deallocate() }

  func send(_ frame: UnsafeRawBufferPointer) {
    precondition(room > 0, "sent although the wire is full")
    room -= 1
    outgoing.append([UInt8](frame))
  }

  func nextFrame() -> UnsafeRawBufferPointer? {
    guard let first = incoming.first else { return nil }
    current?.deallocate()
    // Just as large as the frame, so that a read beyond it can be found.
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: first.count, alignment: 1)
    copy.copyBytes(from: first)
    current = copy
    return UnsafeRawBufferPointer(copy)
  }

  func takeFrame() { incoming.removeFirst() }
  func receiverChanged(isOn: Bool) {}
  func close() throws(DeviceError) {}
}
