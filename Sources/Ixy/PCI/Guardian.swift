import CIxy
import Glibc

/// A small process that stops a card when this one dies hard, where no IOMMU would.
///
/// It holds the card's memory until bus mastering is off and the card is reset, so that the kernel gives it
/// to nobody else, and the card's lock, so that no other process opens the card before. Whoever kills both
/// processes at once is on their own.
final class Guardian: DMAMapper {
  private let socket: FileDescriptor
  let process: Int32

  /// Starts to guard the card with this config space, whose lock the same file carries.
  ///
  /// - Parameters:
  ///   - config: The open file.
  ///   - reset: The file that resets the card when 1 is written to it; it may not be there.
  /// - Throws: When the kernel gives no process.
  init(config: Int32, reset: String) throws(DeviceError) {
    var process: Int32 = 0
    socket = FileDescriptor(owning: unsafe ixy_start_guardian(config, reset, &process))
    self.process = process
    if socket.number < 0 { throw .lastError("Start a guardian process") }
  }

  deinit {
    // A clean end: whoever had the card has stopped it.
    _ = send(IXY_END, iova: 0, size: 0, files: [])
    waitpid(process, nil, 0)
  }

  /// All: it only holds.
  let usableIOVAs: [ClosedRange<UInt64>] = [0 ... .max]

  func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) {
    guard send(IXY_HOLD, iova: iova, size: size, files: [file]), isAcknowledged() else {
      throw .lastError("Tell the guardian process of memory", advice: "Who has killed it?")
    }
  }

  func unmap(iova: UInt64, size: Int) {
    if send(IXY_RELEASE, iova: iova, size: size, files: []) { _ = isAcknowledged() }
  }

  private func send(_ kind: Int, iova: UInt64, size: Int, files: [Int32]) -> Bool {
    var message = ixy_guardian_message(kind: UInt64(kind), iova: iova, size: UInt64(size))
    let length = MemoryLayout<ixy_guardian_message>.size
    let sent = unsafe ixy_send_fds(
      socket.number, &message, UInt(length), files, Int32(files.count))
    return sent == length
  }

  private func isAcknowledged() -> Bool {
    var byte: UInt8 = 0
    while true {
      let got = unsafe recv(socket.number, &byte, 1, 0)
      if got >= 0 || errno != EINTR { return got == 1 }
    }
  }
}

/// A card through sysfs that is stopped even when this process is killed.
public final class GuardedDevice: NUMADevice {
  let card: SysfsDevice
  private let guardian: Guardian

  /// Guards a card that is not in use yet.
  public init(_ card: SysfsDevice) throws(DeviceError) {
    self.card = card
    guardian = try Guardian(config: card.config.number, reset: card.directory + "/reset")
  }

  /// The card's address.
  public var name: String { card.name }
  /// The NUMA node that the card is attached to.
  public var numaNode: Int? { card.numaNode }
  /// Maps the registers behind a memory BAR.
  public func bar(_ index: Int) throws(DeviceError) -> BAR { try card.bar(index) }
  /// Reads config space.
  public func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    try card.readConfig(offset, width: width)
  }
  /// Writes config space.
  public func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    try card.writeConfig(value, to: offset, width: width)
  }
  /// Makes the domain hand out physical addresses, and the guardian hold their memory.
  public func attach(to domain: DMADomain) throws(DeviceError) {
    try card.attach(to: domain)
    try domain.attach(guardian)
  }
}
