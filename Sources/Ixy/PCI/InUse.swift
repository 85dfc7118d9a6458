import Glibc

/// Takes a card away from its kernel driver.
///
/// Everything is decided before anything is touched: the card is one that we can drive, and the kernel
/// does not use it.
///
/// - Parameters:
///   - address: Where it is.
///   - force: Takes it even when its interface is up, has an address, carries a route or is out of sight.
/// - Throws: `DeviceError.refused` with the reason, or what the kernel says.
public func releaseFromKernel(_ address: PCIAddress, force: Bool = false) throws(DeviceError) {
  let card = SysfsCard(address)
  try card.requireSupported()
  if !force { try card.refuseWhenInUse() }
  _ = try card.lock()
  if card.driver != nil { try write("\(address)", to: card.directory + "/driver/unbind") }
}

extension SysfsCard {
  /// Refuses what is no Ethernet card, or one that there is no driver for.
  func requireSupported() throws(DeviceError) {
    guard let classCode, let identity else {
      throw .refused(
        "Open \(address)", found: "there is no PCI device at this address", advice: "Run: ixy list")
    }
    // Class 2, subclass 0: Ethernet.
    let isEthernet = classCode >> 8 == 0x0200
    guard isEthernet, driverName(for: identity) != nil else {
      throw .refused(
        "Open \(address)",
        found: isEthernet
          ? "there is no driver for \(identity)"
          : "it is no Ethernet card (class \(hexadecimal(classCode, 6)))",
        advice: "Run: ixy list")
    }
  }

  /// Locks the card for as long as the file is open; refuses one that another process of ours drives.
  func lock() throws(DeviceError) -> FileDescriptor {
    // Anyone may read it, and so an ordinary user can lock it, too.
    let file = try FileDescriptor(
      path: directory + "/config", O_RDONLY, advice: "Is there such a card? Run: ixy list")
    if flock(file.number, LOCK_EX | LOCK_NB) == 0 { return file }
    var status = stat()
    unsafe fstat(file.number, &status)
    // A line of /proc/locks: 1: FLOCK  ADVISORY  WRITE 4711 00:16:12345 0 EOF
    let holder = (contents(of: "/proc/locks") ?? "").split(separator: "\n")
      .map { $0.split(separator: " ") }
      .first { $0.count > 5 && $0[1] == "FLOCK" && $0[5].hasSuffix(":\(status.st_ino)") }
    throw .refused(
      "Open \(address)", found: "process \(holder.map { String($0[4]) } ?? "unknown") drives it",
      advice: "End that process first.")
  }

  /// Refuses a card whose interface is up, has an address, carries a route or is out of our sight.
  func refuseWhenInUse() throws(DeviceError) {
    let interfaces = interfaces(of: directory)
    if interfaces.isEmpty, let driver = networkDriver {
      throw .refused(
        "Take \(address) from the kernel",
        found:
          "the driver \(driver) has it, and its interface is not to be seen from here: another "
          + "network namespace may use it",
        advice: "Look for it: ip netns; lsns -t net. If you can do without it, say --force.")
    }
    for interface in interfaces {
      let flags = firstLine(of: "\(root)/sys/class/net/\(interface)/flags")
      let isUp = flags.flatMap { UInt32($0.dropFirst(2), radix: 16) }.map { $0 & 1 != 0 } ?? true
      var reason: String?
      if isUp {
        reason = "is up"
      } else if hasAddress(interface) {
        reason = "has an address"
      } else if hasRoute(interface, root: root) {
        reason = "carries a route"
      }
      if let reason {
        throw .refused(
          "Take \(address) from the kernel", found: "its interface \(interface) \(reason)",
          advice: "If you can do without it: ip link set \(interface) down; ip addr flush dev "
            + "\(interface). Or say --force.")
      }
    }
  }
}

extension SysfsCard {
  /// The kernel's driver that makes an interface of the card; nil when none has it.
  private var networkDriver: String? {
    switch driver {
    case "virtio-pci":
      // It only finds the device; another driver has that.
      virtioDevices(of: directory).lazy.compactMap { linkName($0 + "/driver") }.first
    case let driver? where ["vfio", "uio", "igb_uio", "pci-stub"].contains { driver.hasPrefix($0) }:
      nil
    default: driver
    }
  }
}

/// The network interfaces of a card: of its own, or of a virtio device below it.
func interfaces(of directory: String) -> [String] {
  ([directory] + virtioDevices(of: directory)).flatMap { entries(of: $0 + "/net") }
}

private func virtioDevices(of directory: String) -> [String] {
  entries(of: directory).filter { $0.hasPrefix("virtio") }.map { "\(directory)/\($0)" }
}

private func hasAddress(_ interface: String) -> Bool {
  var first: UnsafeMutablePointer<ifaddrs>?
  guard unsafe getifaddrs(&first) == 0 else { return true }
  defer { unsafe freeifaddrs(first) }
  var next = unsafe first
  while let entry = unsafe next?.pointee {
    let family = unsafe entry.ifa_addr.map { unsafe Int32($0.pointee.sa_family) }
    if family == AF_INET || family == AF_INET6, unsafe String(cString: entry.ifa_name) == interface
    {
      return true
    }
    unsafe next = entry.ifa_next
  }
  return false
}

private func hasRoute(_ interface: String, root: String) -> Bool {
  // The interface is the first column for IPv4, the last for IPv6.
  func lines(_ path: String) -> [[Substring]] {
    (contents(of: path) ?? "").split(separator: "\n").map { line in
      line.split { $0 == " " || $0 == "\t" }
    }
  }
  return lines("\(root)/proc/net/route").contains { $0.first.map(String.init) == interface }
    || lines("\(root)/proc/net/ipv6_route").contains { $0.last.map(String.init) == interface }
}
