import Glibc

/// Gives a card to vfio-pci and an ordinary user, or back to the kernel.
public struct CardBinding {
  private let card: SysfsCard
  private var name: String { "\(card.address)" }

  /// The card at an address.
  public init(_ address: PCIAddress) { self.init(SysfsCard(address)) }

  init(_ card: SysfsCard) { self.card = card }

  /// Binds the card to vfio-pci.
  ///
  /// Everything is decided before anything is touched.
  ///
  /// - Parameters:
  ///   - user: Who shall own its IOMMU group; nil leaves it as it is.
  ///   - force: Takes it even when its interface is up, has an address, carries a route or is out of sight.
  /// - Returns: What is still missing before that user can open it, each with the command that mends it.
  /// - Throws: `DeviceError.refused` with the reason, or what the kernel says.
  public func bind(user: String? = nil, force: Bool = false) throws(DeviceError) -> [String] {
    try card.requireSupported()
    try requireIOMMU()
    try requireVFIO()
    var owner: uid_t?
    if let user { owner = try userNumber(user) }
    if card.driver != "vfio-pci" {
      if !force { try card.refuseWhenInUse() }
      _ = try card.lock()
      try move(to: "vfio-pci")
    }
    if let owner { try hand(to: owner) }
    return missing(for: owner ?? getuid())
  }

  /// Gives the card back to the driver that the kernel has for it.
  ///
  /// - Returns: What is still missing, with the command that mends it.
  /// - Throws: `DeviceError.refused` when a process drives it, or what the kernel says.
  public func restore() throws(DeviceError) -> [String] {
    guard card.classCode != nil else {
      throw .refused(
        "Restore \(name)", found: "there is no PCI device at this address", advice: "Run: ixy list")
    }
    // The kernel waits for whoever has it open, for ever.
    _ = try card.lock()
    try write("\n", to: card.directory + "/driver_override")
    let old = card.driver
    if old?.hasPrefix("vfio") == true { try write(name, to: card.directory + "/driver/unbind") }
    if card.driver == nil { try write(name, to: "\(card.root)/sys/bus/pci/drivers_probe") }
    if card.driver != nil { return [] }
    return [
      "No kernel driver took \(name). Load one: sudo modprobe $(cat \(card.directory)/modalias)"
    ]
  }

  // MARK: - Before

  private func requireIOMMU() throws(DeviceError) {
    let unsafeMode = "\(card.root)/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    if card.group != nil || firstLine(of: unsafeMode) == "Y" { return }
    throw .refused(
      "Bind \(name) to vfio-pci", found: "no IOMMU stands before it",
      advice: "Switch it on in the firmware (VT-d, AMD-Vi) and on the kernel's command line "
        + "(intel_iommu=on), or do without: as root, it is used through sysfs.")
  }

  private func requireVFIO() throws(DeviceError) {
    if entries(of: "\(card.root)/sys/bus/pci/drivers").contains("vfio-pci") { return }
    throw .refused(
      "Bind \(name) to vfio-pci", found: "the kernel has not loaded it",
      advice: "Run: sudo modprobe vfio-pci")
  }

  private func userNumber(_ user: String) throws(DeviceError) -> uid_t {
    guard let entry = unsafe getpwnam(user) else {
      // Where there is no such name, it may be a number.
      if let number = uid_t(user) { return number }
      throw .refused(
        "Give \(name) to \(user)", found: "there is no such user",
        advice: "Give the name or the number of a user.")
    }
    return unsafe entry.pointee.pw_uid
  }

  // MARK: - Changes

  /// Takes the card from its driver and offers it to another one; undone when that does not take it.
  private func move(to driver: String) throws(DeviceError) {
    let override = card.directory + "/driver_override"
    let probe = "\(card.root)/sys/bus/pci/drivers_probe"
    try write(driver, to: override)
    do throws(DeviceError) {
      if card.driver != nil { try write(name, to: card.directory + "/driver/unbind") }
      try write(name, to: probe)
    } catch {
      undo(override, probe)
      throw error
    }
    if card.driver == driver { return }
    undo(override, probe)
    throw .refused(
      "Bind \(name) to \(driver)", found: "it did not take it", advice: "Look at: sudo dmesg | tail"
    )
  }

  private func undo(_ override: String, _ probe: String) {
    // The reason why is already known; this is as good as it gets.
    try? write("\n", to: override)
    try? write(name, to: probe)
  }

  private func hand(to owner: uid_t) throws(DeviceError) {
    guard let node = card.group?.node else { return }
    // udev may take a moment to make it.
    for _ in 0..<50 where unsafe access(node, F_OK) != 0 { usleep(20_000) }
    if unsafe chown(node, owner, gid_t.max) != 0 {
      throw .lastError("Give \(node) to user \(owner)", advice: "Run as root.")
    }
  }

  // MARK: - After

  /// What is still missing before a user can open the card.
  func missing(for user: uid_t) -> [String] {
    var notes: [String] = []
    do throws(DeviceError) { try card.group?.requireViable(for: name) } catch {
      notes.append("\(error)")
    }
    if user == 0 { return notes }
    let container = "\(card.root)/dev/vfio/vfio"
    var status = stat()
    if unsafe stat(container, &status) == 0, status.st_mode & 0o006 != 0o006 {
      notes.append("Only root may open \(container). Run: sudo chmod 666 \(container)")
    }
    if let node = card.group?.node, unsafe stat(node, &status) == 0, status.st_uid != user {
      notes.append("User \(user) may not open \(node). Run: sudo ixy bind --user \(user) \(name)")
    }
    if let note = lockedMemoryNote() { notes.append(note) }
    return notes
  }

  /// What to say when the limit of locked memory is too low for mempools and rings of two cards.
  private func lockedMemoryNote() -> String? {
    let enough = 128 << 20
    var limit = rlimit()
    unsafe getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit)
    if limit.rlim_cur >= enough { return nil }
    return "DMA memory counts as locked. " + lockedMemoryAdvice(enough)
  }
}
