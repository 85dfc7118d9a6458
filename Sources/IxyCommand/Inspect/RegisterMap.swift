import Ixy

/// The names of one card's registers.
struct RegisterMap {
  /// Registers of one BAR; their offsets count from `base`.
  struct Block {
    var bar = 0
    var base = 0
    var names: [RegisterName]
  }

  /// One register of the card.
  struct Entry {
    var bar: Int
    var offset: Int
    var name: String
    var register: RegisterName
  }

  /// All of them, those of a block in the order of their table.
  let entries: [Entry]
  private let byPlace: [Int: Int]
  /// Where the datasheet has those of which no source of ours gives the section; empty without a datasheet.
  private let chapter: String

  /// The map of a card; without names where its driver is not known here.
  ///
  /// - Parameters:
  ///   - driver: The name of its driver.
  ///   - bus: Where virtio's structures are is in its capabilities.
  /// - Throws: When the card's config space cannot be read.
  init(of driver: String, _ bus: any PCIDevice) throws(DeviceError) {
    chapter = driver == "ixgbe" ? "§8" : ""
    let blocks: [Block] =
      switch driver {
      case "ixgbe": [Block(names: RegisterName.ixgbe)]
      case "e1000e": [Block(names: RegisterName.e1000e)]
      case "igb": [Block(names: RegisterName.igb)]
      case "vmxnet3":
        [Block(names: RegisterName.vmxnet3Data), Block(bar: 1, names: RegisterName.vmxnet3Control)]
      case "virtio": try RegisterName.virtio(bus)
      default: []
      }
    entries = blocks.flatMap { block in
      block.names.flatMap { register in
        (0..<register.count).map { i in
          Entry(
            bar: block.bar, offset: block.base + register.offset + i * register.stride,
            name: register.name(i), register: register)
        }
      }
    }
    byPlace = Dictionary(
      entries.enumerated().map { (Self.place($1.bar, $1.offset), $0) },
      uniquingKeysWith: { first, _ in first })
  }

  /// The register at an offset.
  func find(bar: Int, _ offset: Int) -> Entry? {
    byPlace[Self.place(bar, offset)].map { entries[$0] }
  }

  /// Where the datasheet has a register; empty where that is not known.
  func section(of register: RegisterName) -> String {
    register.section.isEmpty ? chapter : register.section
  }

  private static func place(_ bar: Int, _ offset: Int) -> Int { bar << 56 | offset }
}

/// Where a card of Intel's has the registers of its rings: each ring's are at the same distances.
struct RingRegisters {
  let base: Int

  /// Receive ring `n`; nil for other cards.
  init?(receive n: Int, of driver: String) {
    switch driver {
    case "ixgbe": base = n < 64 ? 0x01000 + 0x40 * n : 0x0D000 + 0x40 * (n - 64)
    case "e1000e": base = 0x02800 + 0x100 * n
    case "igb": base = 0x0C000 + 0x40 * n
    default: return nil
    }
  }

  /// Transmit ring `n`; nil for other cards.
  init?(transmit n: Int, of driver: String) {
    switch driver {
    case "ixgbe": base = 0x06000 + 0x40 * n
    case "e1000e": base = 0x03800 + 0x100 * n
    case "igb": base = 0x0E000 + 0x40 * n
    default: return nil
    }
  }

  /// The descriptors' address, low and high.
  var address: (low: Int, high: Int) { (base, base + 0x04) }
  /// The length in bytes.
  var length: Int { base + 0x08 }
  var head: Int { base + 0x10 }
  var tail: Int { base + 0x18 }
}
