/// Which frames the card takes, by destination and VLAN (reference, section 5).
@safe final class AddressFilter {
  // SAFETY: the tables have 128 entries; an index is a place below that, or the upper 7 of 12 bits.
  /// What the filter says of a frame.
  enum Verdict {
    case reject, exact
    /// Accepted by the hash table alone: other addresses share its bits.
    case inexact
  }

  /// The broadcast address, as `load` reads an address.
  static let broadcast: UInt64 = 0xFFFF_FFFF_FFFF

  /// The EtherType of VLAN tags, VLNCTRL.VET, as it is in memory.
  private(set) var vlanType = UInt16(0x8100).bigEndian
  /// An address is taken when its bits under `mask` are `wanted`: when it is our own, or any but a group's.
  private var mask: UInt64 = 0
  private var wanted: UInt64 = 1
  private var takesAllMulticast = false
  private var takesBroadcast = false
  private var filtersVLAN = false
  /// The canonical form indicator that tagged frames must have; nil: any.
  private var wantedCFI: UInt16?
  private var usesTable = false
  /// MO: how far the last two bytes of an address are shifted for their place in the table.
  private var tableShift: UInt64 = 4
  private var addressCount = 0
  private let addresses = UnsafeMutablePointer<UInt64>.allocate(capacity: 128)
  /// MTA and VFTA: 4096 bits each.
  private let multicastTable = UnsafeMutablePointer<UInt32>.allocate(capacity: 128)
  private let vlanTable = UnsafeMutablePointer<UInt32>.allocate(capacity: 128)

  init() {
    unsafe addresses.initialize(repeating: 0, count: 128)
    unsafe multicastTable.initialize(repeating: 0, count: 128)
    unsafe vlanTable.initialize(repeating: 0, count: 128)
  }

  deinit {
    unsafe addresses.deallocate()
    unsafe multicastTable.deallocate()
    unsafe vlanTable.deallocate()
  }

  /// Takes the registers in.
  func refresh(_ registers: RegisterFile) {
    let fctrl = registers[EngineRegister.fctrl]
    takesAllMulticast = fctrl & EngineBit.multicastPromiscuous != 0
    takesBroadcast = fctrl & EngineBit.acceptBroadcast != 0

    let vlan = registers[EngineRegister.vlnctrl]
    vlanType = UInt16(truncatingIfNeeded: vlan).bigEndian
    filtersVLAN = vlan & EngineBit.vlanFilter != 0
    wantedCFI = vlan & EngineBit.cfiFilter == 0 ? nil : vlan & EngineBit.cfi == 0 ? 0 : 1

    let multicast = registers[EngineRegister.mcstctrl]
    usesTable = multicast & EngineBit.multicastFilter != 0
    tableShift = [4, 3, 2, 0][Int(multicast & 3)]

    addressCount = 0
    for i in 0..<128 {
      unsafe multicastTable[i] = registers[EngineRegister.mta(i)]
      unsafe vlanTable[i] = registers[EngineRegister.vfta(i)]
      let high = registers[EngineRegister.rah(i)]
      if high & EngineBit.addressValid != 0 {
        unsafe addresses[addressCount] =
          UInt64(registers[EngineRegister.ral(i)]) | UInt64(high & 0xFFFF) << 32
        addressCount += 1
      }
    }
    if fctrl & EngineBit.unicastPromiscuous != 0 {
      (mask, wanted) = (1, 0)
    } else if addressCount > 0 {
      // The first valid one is nearly always the card's own.
      (mask, wanted) = unsafe (Self.broadcast, addresses[0])
    } else {
      (mask, wanted) = (0, 1)
    }
  }

  /// The address at `bytes`, its first byte lowest; 8 bytes are read.
  @inline(__always)
  static func load(_ bytes: UnsafeRawPointer) -> UInt64 {
    unsafe bytes.loadUnaligned(as: UInt64.self).littleEndian & 0xFFFF_FFFF_FFFF
  }

  /// Whether a frame that begins with these 8 bytes is taken without a look at any table; most are.
  @inline(__always)
  func takes(_ start: UInt64) -> Bool { start & mask == wanted }

  /// Whether a frame to `destination` is taken.
  @inline(never)
  func check(_ destination: UInt64) -> Verdict {
    if takes(destination) { return .exact }
    if destination & 1 == 0 { return search(destination) }
    if takesAllMulticast { return .exact }
    if destination == Self.broadcast { return takesBroadcast ? .exact : .reject }
    if search(destination) == .exact { return .exact }
    let bit = Int(destination >> (32 + tableShift) & 0xFFF)
    return unsafe usesTable && multicastTable[bit >> 5] >> UInt32(bit & 31) & 1 != 0
      ? .inexact : .reject
  }

  private func search(_ destination: UInt64) -> Verdict {
    for i in 0..<addressCount where unsafe addresses[i] == destination { return .exact }
    return .reject
  }

  /// Whether a frame with this tag is taken.
  func checkTag(_ tag: UInt16) -> Bool {
    if let wantedCFI, tag >> 12 & 1 != wantedCFI { return false }
    let id = Int(tag & 0xFFF)
    return unsafe !filtersVLAN || vlanTable[id >> 5] >> UInt32(id & 31) & 1 != 0
  }
}
