import Glibc

@testable import Ixy

/// A made-up `/sys` and `/dev`, removed with this object.
@safe final class MachineTree {
  let root: String

  init() {
    var path = Array("/tmp/ixy-tree-XXXXXX".utf8CString)
    guard mkdtemp(&path) != nil else { fatalError("mkdtemp: errno \(errno)") }
    root = String(decoding: path.dropLast().map(UInt8.init), as: UTF8.self)
    for folder in ["sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/class/net", "dev/vfio"] {
      makeFolder(folder)
    }
    file("sys/bus/pci/drivers_probe", "")
  }

  deinit { remove(root) }

  private func remove(_ path: String) {
    for name in entries(of: path) { remove("\(path)/\(name)") }
    if unlink(path) != 0 { rmdir(path) }
  }

  func makeFolder(_ path: String) {
    var made = root
    for part in path.split(separator: "/") {
      made += "/\(part)"
      mkdir(made, 0o755)
    }
  }

  func file(_ path: String, _ text: String) {
    makeFolder(path.split(separator: "/").dropLast().joined(separator: "/"))
    guard let file = fopen("\(root)/\(path)", "w") else { fatalError("\(path): errno \(errno)") }
    fputs(text, file)
    fclose(file)
  }

  func link(_ path: String, to target: String) {
    makeFolder(path.split(separator: "/").dropLast().joined(separator: "/"))
    unlink("\(root)/\(path)")
    guard symlink(target, "\(root)/\(path)") == 0 else { fatalError("\(path): errno \(errno)") }
  }

  func text(_ path: String) -> String? { contents(of: "\(root)/\(path)") }

  /// An 82599 unless told otherwise.
  @discardableResult func card(
    _ address: String, device: String = "0x10fb", kind: String = "0x020000", driver: String? = nil,
    group: String? = nil
  ) -> SysfsCard {
    let folder = "sys/bus/pci/devices/\(address)"
    file("\(folder)/vendor", "0x8086\n")
    file("\(folder)/device", "\(device)\n")
    file("\(folder)/class", "\(kind)\n")
    file("\(folder)/config", "config space")
    file("\(folder)/driver_override", "(null)\n")
    if let driver {
      makeFolder("sys/bus/pci/drivers/\(driver)")
      file("sys/bus/pci/drivers/\(driver)/unbind", "")
      link("\(folder)/driver", to: "../../drivers/\(driver)")
    }
    if let group {
      makeFolder("sys/kernel/iommu_groups/\(group)/devices/\(address)")
      file("sys/kernel/iommu_groups/\(group)/type", "DMA-FQ\n")
      link("\(folder)/iommu_group", to: "../../../../kernel/iommu_groups/\(group)")
    }
    guard let address = PCIAddress(address) else { fatalError("no address: \(address)") }
    return SysfsCard(address, root: root)
  }

  /// An interface of a card, with the flags that the kernel writes: 0x1002 is down, 0x1003 is up.
  func interface(_ name: String, of card: SysfsCard, flags: String) {
    makeFolder("sys/bus/pci/devices/\(card.address)/net/\(name)")
    file("sys/class/net/\(name)/flags", flags)
  }
}

/// What a closure throws, as its user reads it.
func message(_ body: () throws -> Void) -> String {
  do { try body() } catch { return "\(error)" }
  return "(nothing thrown)"
}

/// Looks again and again, for a minute at most, whether something is so.
///
/// A child that another test is just starting holds a copy of every descriptor, and with it every lock: what is
/// closed may not be free at once.
func eventually(_ condition: () -> Bool) -> Bool {
  let deadline = ContinuousClock.now + .seconds(60)
  while !condition() {
    if .now >= deadline { return false }
    usleep(1000)
  }
  return true
}
