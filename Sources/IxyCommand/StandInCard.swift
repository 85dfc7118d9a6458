import CIxy
import Glibc
import Ixy

/// Stands in for an 82599 in the thread of its driver: it marks descriptors done, and does nothing else.
///
/// So what is measured is the driver. It neither writes frames nor reads them.
@safe final class StandInCard: PCIDevice {
  let name = "stand-in"
  private let memory = StandInMemory()
  private let registers = StandInRegisters()
  /// The pages of the tail registers; the BAR unmaps them.
  private let pages: UnsafeMutableRawPointer
  private static let size = 128 << 10
  // Where the card is in its rings.
  private var receiveHead = 0
  private var transmitHead = 0
  private(set) var sent = 0

  init() throws {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS
    let found = unsafe mmap(nil, Self.size, PROT_READ | PROT_WRITE, flags, -1, 0)
    guard let found = unsafe found, unsafe found != MAP_FAILED else {
      throw DeviceError.lastError("Map the stand-in's registers")
    }
    unsafe pages = found
  }

  func bar(_ index: Int) -> BAR {
    unsafe ForwardedBAR(
      registers, size: Self.size, base: pages, mapped: [0x1000..<0x2000, 0x6000..<0x8000])
  }

  func readConfig(_ offset: Int, width: Int) -> UInt32 { offset == 0 ? 0x10FB_8086 : 0 }
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {}
  func attach(to domain: DMADomain) throws(DeviceError) { try domain.attach(memory) }

  /// Lets at most `frames` of 60 bytes arrive, and sends all that is queued.
  ///
  /// With legacy descriptors both rings are one, and the transmit head is reported.
  @inline(never) func step(_ frames: Int, isLegacy: Bool) {
    let mask = Int(register(0x1008)) / 16 - 1
    let (ring, tail) = unsafe (memory.pointer(to: register(0x1000)), Int(register(0x1018)))
    var head = receiveHead
    let end = (head + min(frames, (tail - head) & mask)) & mask
    while head != end {
      let descriptor = unsafe ring + 16 * head
      if !isLegacy { unsafe ixy_store64(descriptor, 0) }
      unsafe ixy_store64(descriptor + 8, isLegacy ? 3 << 32 | 60 : 60 << 32 | 3)
      head = (head &+ 1) & mask
    }
    receiveHead = end
    send(mask, isLegacy: isLegacy)
  }

  private func send(_ mask: Int, isLegacy: Bool) {
    let (ring, tail) = unsafe (memory.pointer(to: register(0x6000)), Int(register(0x6018)))
    var head = transmitHead
    sent += (tail - head) & mask
    transmitHead = tail
    if isLegacy {
      // As for the descriptors with RS, the last of each 32.
      unsafe ixy_store32(memory.pointer(to: register(0x6038) & ~3), UInt32(tail & ~31))
      return
    }
    while head != tail {
      let status = unsafe ring + 16 * head + 8
      if unsafe ixy_load64(status) & 1 << 27 != 0 { unsafe ixy_store64(status, 1 << 32) }
      head = (head &+ 1) & mask
    }
  }

  private func register(_ offset: Int) -> UInt32 { unsafe ixy_load32(pages + offset) }
}

/// Where the driver's rings are: all of its memory lies at one constant + IOVA.
@safe private final class StandInMemory: DMAMapper {
  private var origin: UnsafeMutableRawPointer?

  var usableIOVAs: [ClosedRange<UInt64>] { [0...UInt64.max] }

  func map(file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int) {
    unsafe origin = unsafe base - Int(iova)
  }

  func unmap(iova: UInt64, size: Int) {}

  func pointer(to iova: UInt32) -> UnsafeMutableRawPointer {
    guard let origin = unsafe origin else { fatalError("a driver without memory") }
    return unsafe origin + Int(iova)
  }
}

/// Registers that read as they were written, and as a card that is ready.
private final class StandInRegisters: RegisterAccess {
  /// EEC, RDRXCTL and SECRXSTAT: the EEPROM is read, the DMA engine has started, the security path is empty.
  private var values: [Int: UInt64] = [0x10010: 0x200, 0x2F00: 8, 0x8D04: 1]

  func read(_ offset: Int, width: Int) -> UInt64 { offset == 0 ? 0 : values[offset] ?? 0 }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    switch offset {
    case 0x8, 0x10010: break
    case 0x2F00: values[offset] = value | 8
    default: values[offset] = value
    }
  }
}
