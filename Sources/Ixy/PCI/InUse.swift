import Glibc

/// Takes a card away from its kernel driver.
///
/// Everything is decided before anything is touched: the card is one that we can drive, and the kernel
/// does not use it.
///
/// - Parameters:
///   - address: Where it is.
///   - force: Takes it even when its interface is up, has an address or carries a route.
/// - Throws: `DeviceError.refused` with the reason, or what the kernel says.
public func releaseFromKernel(_ address: PCIAddress, force: Bool = false) throws(DeviceError) {
  let directory = "/sys/bus/pci/devices/\(address)"
  try requireSupported(address)
  if !force { try refuseWhenInUse(directory, name: "\(address)") }
  try refuseWhenLocked(directory, name: "\(address)")
  if unsafe access(directory + "/driver", F_OK) == 0 {
    try write("\(address)", to: directory + "/driver/unbind")
  }
}

/// Refuses what is no Ethernet card, or one that there is no driver for.
func requireSupported(_ address: PCIAddress) throws(DeviceError) {
  func number(_ file: String) -> UInt32? {
    firstLine(of: "/sys/bus/pci/devices/\(address)/\(file)").flatMap {
      UInt32($0.dropFirst(2), radix: 16)
    }
  }
  guard let kind = number("class"), let vendor = number("vendor"), let device = number("device")
  else {
    throw .refused(
      "Open \(address)", found: "there is no PCI device at this address", advice: "Run: ixy list")
  }
  let id = PCIIdentity(
    vendor: UInt16(truncatingIfNeeded: vendor), device: UInt16(truncatingIfNeeded: device))
  guard kind >> 8 == 0x0200, driverName(for: id) != nil else {
    throw .refused(
      "Open \(address)",
      found: kind >> 8 == 0x0200
        ? "there is no driver for \(id)"
        : "it is no Ethernet card (class \(String(kind, radix: 16)))",
      advice: "Run: ixy list")
  }
}

/// Refuses a card that another process of ours drives, by the lock on its config space.
func refuseWhenLocked(_ directory: String, name: String) throws(DeviceError) {
  let file = try FileDescriptor(path: directory + "/config", O_RDONLY)
  if flock(file.number, LOCK_EX | LOCK_NB) == 0 { return }
  var status = stat()
  unsafe fstat(file.number, &status)
  // A line of /proc/locks: 1: FLOCK  ADVISORY  WRITE 4711 00:16:12345 0 EOF
  let holder = (contents(of: "/proc/locks") ?? "").split(separator: "\n")
    .map { $0.split(separator: " ") }
    .first { $0.count > 5 && $0[1] == "FLOCK" && $0[5].hasSuffix(":\(status.st_ino)") }
  throw .refused(
    "Open \(name)", found: "process \(holder.map { String($0[4]) } ?? "unknown") drives it",
    advice: "End that process first.")
}

/// Refuses a card whose interface is up, has an address or carries a route.
func refuseWhenInUse(_ directory: String, name: String) throws(DeviceError) {
  for interface in interfaces(of: directory) {
    let flags = firstLine(of: "/sys/class/net/\(interface)/flags")
    let isUp = flags.flatMap { UInt32($0.dropFirst(2), radix: 16) }.map { $0 & 1 != 0 } ?? true
    let reason: String? =
      if isUp { "is up" } else if hasAddress(interface) {
        "has an address"
      } else if hasRoute(
        interface)
      { "carries a route" } else { nil }
    if let reason {
      throw .refused(
        "Take \(name) from the kernel", found: "its interface \(interface) \(reason)",
        advice: "If you can do without it: ip link set \(interface) down; ip addr flush dev "
          + "\(interface). Or say --force.")
    }
  }
}

/// The network interfaces of a card: of its own, or of a virtio device below it.
func interfaces(of directory: String) -> [String] {
  let below = entries(of: directory).filter { $0.hasPrefix("virtio") }.map { "\(directory)/\($0)" }
  return ([directory] + below).flatMap { entries(of: $0 + "/net") }
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

private func hasRoute(_ interface: String) -> Bool {
  // The interface is the first column for IPv4, the last for IPv6.
  func lines(_ path: String) -> [[Substring]] {
    (contents(of: path) ?? "").split(separator: "\n").map { line in
      line.split { $0 == " " || $0 == "\t" }
    }
  }
  return lines("/proc/net/route").contains { $0.first.map(String.init) == interface }
    || lines("/proc/net/ipv6_route").contains { $0.last.map(String.init) == interface }
}
