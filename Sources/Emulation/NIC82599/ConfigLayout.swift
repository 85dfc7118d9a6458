/// Builds config space: the value, the writable and the clearable bits of each byte.
struct ConfigLayout {
  private(set) var bytes = [UInt8](repeating: 0, count: ConfigSpace.size)
  private(set) var writable = [UInt8](repeating: 0, count: ConfigSpace.size)
  private(set) var clearable = [UInt8](repeating: 0, count: ConfigSpace.size)

  private mutating func set(
    _ offset: Int, _ value: UInt32, width: Int = 4, writable mask: UInt32 = 0,
    clearable clear: UInt32 = 0
  ) {
    for i in 0..<width {
      let shift = UInt32(8 * i)
      bytes[offset + i] = UInt8(truncatingIfNeeded: value >> shift)
      writable[offset + i] = UInt8(truncatingIfNeeded: mask >> shift)
      clearable[offset + i] = UInt8(truncatingIfNeeded: clear >> shift)
    }
  }

  /// The first 64 bytes.
  ///
  /// The sizes are powers of two; BAR 0 and 4 are 64 bits wide, BAR 2 is I/O.
  mutating func header(device: UInt32, subsystem: UInt32, barSizes: [Int]) {
    set(0x00, device << 16 | 0x8086)
    set(0x04, 0, width: 2, writable: 0x0547)  // Command
    set(0x06, 0x0010, width: 2, clearable: 0xF900)  // Status: a capability list
    set(0x08, 0x0200_0001)  // Ethernet controller, revision 1
    set(0x0C, 0, width: 1, writable: 0xFF)  // Cache Line Size
    for (i, size) in barSizes.enumerated() where size > 0 {
      let isIO = i == 2
      let mask = UInt32(truncatingIfNeeded: -size)
      set(0x10 + 4 * i, isIO ? 0x1 : 0x4, writable: mask)
      if !isIO { set(0x14 + 4 * i, 0, writable: .max) }
    }
    set(0x2C, subsystem << 16 | 0x8086)
    set(0x34, 0x40, width: 1)
    set(0x3C, 0, width: 1, writable: 0xFF)  // Interrupt Line
    set(0x3D, 1, width: 1)  // Interrupt Pin: A
  }

  /// The capabilities, at the offsets that drivers have built in.
  mutating func capabilities(serial: UInt64) {
    // Power management, version 3; PMCSR with the power state, PME enable and status.
    set(0x40, 0x4823_5001)
    set(0x44, 0x2000, writable: 0x1F03, clearable: 0x8000)
    // MSI: one vector, 64-bit, maskable.
    set(0x50, 0x0180_7005, writable: 0x0071_0000)
    set(0x54, 0, writable: 0xFFFF_FFFC)
    set(0x58, 0, writable: .max)
    set(0x5C, 0, writable: 0xFFFF)
    set(0x60, 0, writable: 1)
    // MSI-X: 64 vectors, table and pending bits in BAR 4.
    set(0x70, 0x003F_A011, writable: 0xC000_0000)
    set(0x74, 0x4)
    set(0x78, 0x2004)
    express()
    extended(serial: serial)
  }

  /// PCI Express endpoint, version 2, with function-level reset; 8 lanes at 5 GT/s.
  private mutating func express() {
    set(0xA0, 0x0002_0010)
    set(0xA4, 0x1000_8CC2)
    set(0xA8, 0x2810, width: 2, writable: 0x7FFF)
    set(0xAA, 0, width: 2, clearable: 0xF)
    set(0xAC, 0x482)
    set(0xB0, 0x40, width: 2, writable: 0x01C3)
    set(0xB2, 0x1082, width: 2)
    set(0xC4, 0x1F)
    set(0xC8, 0, width: 2, writable: 0x1F)
    set(0xD0, 2, width: 2, writable: 0x000F)
  }

  /// Advanced error reporting and the serial number.
  private mutating func extended(serial: UInt64) {
    set(0x100, 0x1401_0001)
    set(0x104, 0, clearable: .max)
    set(0x108, 0, writable: 0x003F_F030)
    set(0x10C, 0x0006_2030, writable: 0x003F_F030)
    set(0x110, 0, clearable: 0xF1C1)
    set(0x114, 0x2000, writable: 0xF1C1)
    set(0x118, 0xA0, writable: 0x140)
    set(0x140, 0x0001_0003)
    set(0x144, UInt32(truncatingIfNeeded: serial))
    set(0x148, UInt32(truncatingIfNeeded: serial >> 32))
  }
}
