/// How a register answers, apart from what its effect adds.
enum RegisterKind: UInt8, Sendable {
  /// Holds what was written, in its writable bits.
  case readWrite
  /// Ignores writes.
  case readOnly
  /// A counter that a read sets to zero; it ignores writes.
  case clearOnRead
  /// A 1 that is written clears the bit.
  case writeOneToClear
  /// Stores nothing: its effect answers reads and acts on writes.
  case command
}

/// What a write to a register sets off, or what answers a read of it.
enum RegisterEffect: UInt8, Sendable {
  case none
  // General
  case deviceControl, deviceStatus, softwarePins, freeRunningTimer
  // Interrupts
  case eicr, eics, eims, eimc, eiac, eiam
  case eicsExtended, eimsExtended, eimcExtended, eiamExtended
  case gpie, eitr, ivar, ivarMisc
  // EEPROM, module, semaphores, firmware
  case eepromControl, eepromRead, eepromWrite, twoWire, swsm, gssr, hostInterface
  // Link
  case autoc, links, mdioCommand
  // Receive
  case receiveConfiguration, receiveControl, receiveRing, receiveHead, receiveTail
  case receiveQueueControl, flowDirectorControl
  // Transmit
  case transmitConfiguration, bothConfigurations, transmitRing, transmitHead, transmitTail
  case transmitQueueControl
}

/// One register, or an array of equal ones.
struct RegisterBlock: Sendable {
  /// The datasheet's acronym.
  let name: String
  /// Bytes from the start of BAR 0 to the first of them.
  let offset: Int
  let count: Int
  let stride: Int
  /// The number of the first of them: 64 in the second bank of the queues.
  let first: Int
  let kind: RegisterKind
  let reset: UInt32
  /// The bits that a write changes.
  let writable: UInt32
  let effect: RegisterEffect

  init(
    _ name: String, _ offset: Int, count: Int = 1, stride: Int = 4, first: Int = 0,
    _ kind: RegisterKind = .readWrite, reset: UInt32 = 0, writable: UInt32 = .max,
    effect: RegisterEffect = .none
  ) {
    self.name = name
    self.offset = offset
    self.count = count
    self.stride = stride
    self.first = first
    self.kind = kind
    self.reset = reset
    self.writable = writable
    self.effect = effect
  }

  /// The offset of each of them.
  var offsets: [Int] { (0..<count).map { offset + $0 * stride } }
}

/// Registers that can be reached at a second offset.
struct RegisterAlias: Sendable {
  let offset: Int
  let stride: Int
  let of: Int
  let ofStride: Int
  let count: Int

  init(_ offset: Int, stride: Int = 4, of: Int, ofStride: Int = 4, count: Int = 1) {
    self.offset = offset
    self.stride = stride
    self.of = of
    self.ofStride = ofStride
    self.count = count
  }
}

/// All registers of a card: what is at an offset.
///
/// What is not listed reads as 0 and ignores writes (reference, section 0).
final class RegisterMap: Sendable {
  let blocks: [RegisterBlock]
  /// For each word, the place of its block in `blocks` plus 1; 0 where there is no register.
  private let blockOf: [UInt16]
  /// For each word, the word that holds the value, as an alias shares its register's.
  private let home: [UInt16]
  /// For each word, its alias, or itself.
  private let twin: [UInt16]

  /// Every register that stores something: where, its copy, and its value after a reset.
  let resets: [(home: Int, twin: Int, value: UInt32)]

  private static let i82599 = RegisterMap(family: .i82599)
  private static let x540 = RegisterMap(family: .x540)
  private static let x550 = RegisterMap(family: .x550)

  /// The map of a family, made once.
  static func of(_ family: NIC82599.Family) -> RegisterMap {
    switch family {
    case .i82599: i82599
    case .x540: x540
    case .x550: x550
    }
  }

  private init(family: NIC82599.Family) {
    let words = RegisterFile.size / 4
    blocks = RegisterTable.blocks(of: family)
    var blockOf = [UInt16](repeating: 0, count: words)
    var home = (0..<words).map { UInt16($0) }
    var twin = home
    for (place, block) in blocks.enumerated() {
      for offset in block.offsets { blockOf[offset / 4] = UInt16(place + 1) }
    }
    for alias in RegisterTable.aliases {
      for i in 0..<alias.count {
        let (low, high) = (
          (alias.offset + i * alias.stride) / 4, (alias.of + i * alias.ofStride) / 4
        )
        blockOf[low] = blockOf[high]
        home[low] = UInt16(high)
        twin[high] = UInt16(low)
      }
    }
    (self.blockOf, self.home, self.twin) = (blockOf, home, twin)
    resets = blocks.flatMap { block in
      block.offsets.map { ($0, Int(twin[$0 / 4]) * 4, block.reset) }
    }
  }

  /// What is at `offset`: the register's block, its number, where its value is, and that value's copy.
  @inline(__always)
  func find(_ offset: Int) -> (block: RegisterBlock, index: Int, home: Int, twin: Int)? {
    let word = offset >> 2
    guard word >= 0, word < blockOf.count, blockOf[word] != 0 else { return nil }
    let block = blocks[Int(blockOf[word]) - 1]
    let home = Int(home[word])
    let index = block.first + (home * 4 - block.offset) / block.stride
    return (block, index, home * 4, Int(twin[home]) * 4)
  }
}
