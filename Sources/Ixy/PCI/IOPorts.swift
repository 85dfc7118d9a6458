import Glibc

/// A device whose I/O ports are reached in another way than its memory.
public protocol PortDevice: PCIDevice {
  /// The registers behind an I/O port BAR.
  func ports(_ index: Int) throws(DeviceError) -> BAR
}

extension PCIDevice {
  /// The registers of a BAR, be they memory or I/O ports.
  public func registers(_ index: Int) throws(DeviceError) -> BAR {
    // Bit 0 of the BAR tells the two apart.
    let isPorts = try readConfig(0x10 + 4 * index, width: 4) & 1 != 0
    guard isPorts, let device = self as? any PortDevice else { return try bar(index) }
    return try device.ports(index)
  }

  /// Lets the device answer at its I/O ports (Command, bit 0).
  func enablePorts() throws(DeviceError) {
    try writeConfig(try readConfig(4, width: 2) | 1, to: 4, width: 2)
  }

  /// Lets the device use its INTx line (Command, bit 10), or keeps it quiet where nobody would answer.
  func setINTx(_ on: Bool) throws(DeviceError) {
    let others = try readConfig(4, width: 2) & ~(1 << 10)
    try writeConfig(on ? others : others | 1 << 10, to: 4, width: 2)
  }
}

extension SysfsDevice: PortDevice {
  /// I/O ports cannot be mapped: the kernel reads and writes them for us.
  public func ports(_ index: Int) throws(DeviceError) -> BAR {
    try Self.ports(at: "\(directory)/resource\(index)")
  }

  /// The registers behind the file of an I/O port BAR.
  static func ports(at path: String) throws(DeviceError) -> BAR {
    let file = try FileDescriptor(path: path, O_RDWR)
    var status = stat()
    // As for memory: seeking to the end gives 0 before Linux 6.6.
    let size = unsafe fstat(file.number, &status) == 0 ? Int(status.st_size) : 0
    return ForwardedBAR(SysfsPorts(file), size: size)
  }
}

extension GuardedDevice: PortDevice {
  /// The registers behind an I/O port BAR of the card that is guarded.
  public func ports(_ index: Int) throws(DeviceError) -> BAR { try card.ports(index) }
}

/// I/O ports as a file of sysfs.
private final class SysfsPorts: RegisterAccess {
  private let file: FileDescriptor

  init(_ file: consuming FileDescriptor) { self.file = file }

  func read(_ offset: Int, width: Int) -> UInt64 {
    var value: UInt64 = 0
    return unsafe pread(file.number, &value, width, offset) == width ? value : .max
  }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    var value = value
    // Nobody to tell: a card that is gone says so when it is read.
    _ = unsafe pwrite(file.number, &value, width, offset)
  }
}
