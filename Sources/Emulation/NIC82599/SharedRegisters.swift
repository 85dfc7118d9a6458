/// What was last seen of the register pages that a driver may have mapped.
///
/// A driver's write to these pages makes no call: it is found by comparing. Counters and what the card
/// itself writes are not compared; they are shadows, which a driver that maps the pages sees late.
@safe final class SharedRegisters {
  // SAFETY: `seen` has a word for each of the register file's, and each offset is checked against
  // its size.
  /// The pages with all registers of the queues.
  static let pages = [0x1000..<0x2000, 0x6000..<0x8000, 0xD000..<0xE000]

  let isOn: Bool
  /// The registers that are compared, in ascending order.
  let compared: [Int]
  /// Room for every register.
  private let seen = UnsafeMutablePointer<UInt32>.allocate(capacity: RegisterFile.size / 4)
  // Assigned whole, never changed in place: else every look at them is one for exclusive access too.
  private(set) var receiveQueues: [Int] = []
  private(set) var transmitQueues: [Int] = []

  init(map: RegisterMap, isOn: Bool) {
    self.isOn = isOn
    let offsets = map.blocks.filter { $0.kind == .readWrite }.flatMap(\.offsets)
    compared = offsets.filter { offset in Self.pages.contains { $0.contains(offset) } }.sorted()
    unsafe seen.initialize(repeating: 0, count: RegisterFile.size / 4)
  }

  deinit { unsafe seen.deallocate() }

  /// The value of a register is known to be `value`.
  @inline(__always) func latch(_ offset: Int, _ value: UInt32) {
    precondition(offset >= 0 && offset < RegisterFile.size)
    if isOn { unsafe seen[offset >> 2] = value }
  }

  /// Whether a register holds something else than was last seen.
  @inline(__always) func differs(_ offset: Int, _ value: UInt32) -> Bool {
    lastSeen(offset) != value
  }

  /// The place in `compared`, from `start` on, of a register that holds something new; nil at the end.
  func nextDifference(from start: Int, in registers: RegisterFile) -> Int? {
    var place = start
    while place < compared.count {
      let offset = compared[place]
      if registers[offset] != lastSeen(offset) { return place }
      place += 1
    }
    return nil
  }

  /// What was last seen of a register.
  @inline(__always) func lastSeen(_ offset: Int) -> UInt32 {
    precondition(offset >= 0 && offset < RegisterFile.size)
    return unsafe seen[offset >> 2]
  }

  /// After a reset: everything is as it is, and no queue is on.
  func latchAll(_ registers: RegisterFile) {
    (receiveQueues, transmitQueues) = ([], [])
    for offset in compared { latch(offset, registers[offset]) }
  }

  /// The card has moved the heads of the queues.
  func latchHeads(_ registers: RegisterFile) {
    guard isOn else { return }
    for queue in receiveQueues {
      let head = EngineRegister.receiveBank(queue) + EngineRegister.Bank.head
      latch(head, registers[head])
    }
    for queue in transmitQueues {
      let head = EngineRegister.transmitBank(queue) + EngineRegister.Bank.head
      latch(head, registers[head])
    }
  }

  func receiveQueue(_ queue: Int, isOn: Bool) {
    receiveQueues = receiveQueues.filter { $0 != queue } + (isOn ? [queue] : [])
  }

  func transmitQueue(_ queue: Int, isOn: Bool) {
    transmitQueues = transmitQueues.filter { $0 != queue } + (isOn ? [queue] : [])
  }
}

extension NIC82599 {
  /// Steps between two looks at all of the shared pages.
  private static let stepsPerScan = 256

  /// Takes in everything that a driver has written to the shared pages, as if by message.
  public func takeSharedWrites() {
    guard shared.isOn else { return }
    stepsToScan = Self.stepsPerScan
    var start = 0
    while let place = shared.nextDifference(from: start, in: registers) {
      takeSharedWrite(at: shared.compared[place])
      start = place + 1
    }
  }

  /// Takes in the tails of the queues that are on; now and then, everything.
  func takeTails() {
    guard shared.isOn else { return }
    stepsToScan -= 1
    if stepsToScan <= 0 { return takeSharedWrites() }
    for queue in shared.receiveQueues {
      let offset = EngineRegister.receiveBank(queue) + EngineRegister.Bank.tail
      let tail = registers[offset]
      if shared.differs(offset, tail) {
        shared.latch(offset, tail)
        receiver.setTail(queue: queue, tail & 0xFFFF)
      }
    }
    for queue in shared.transmitQueues {
      let offset = EngineRegister.transmitBank(queue) + EngineRegister.Bank.tail
      let tail = registers[offset]
      if shared.differs(offset, tail) {
        shared.latch(offset, tail)
        transmitter.setTail(queue: queue, tail & 0xFFFF)
      }
    }
  }

  private func takeSharedWrite(at offset: Int) {
    guard let (block, index, home, twin) = map.find(offset) else { return }
    let value = registers[offset]
    let old = shared.lastSeen(offset)
    let new = old & ~block.writable | value & block.writable
    if new != value {
      store(new, at: home, twin: twin)
    } else {
      // Not stored again: the driver may have written the next doorbell meanwhile, which that would undo.
      shared.latch(home, new)
      if twin != home { registers[twin] = new }
    }
    guard new != old else { return }
    wasWritten(block.effect, index, home: home, old: old, new: new, raw: value)
    // A ring that moves while its queue is on: the queue was off in between, unseen.
    if block.effect == .receiveRing, shared.receiveQueues.contains(index) {
      receiver.disable(queue: index)
      receiver.enable(queue: index)
    } else if block.effect == .transmitRing, shared.transmitQueues.contains(index) {
      transmitter.disable(queue: index)
      transmitter.enable(queue: index)
    }
  }
}
