import ArgumentParser
import Foundation
import Ixy

/// The command `ixy doctor`.
struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Says what a machine or a card lacks, and its cure.",
    discussion: "It only looks. It exits with 1 when something is missing.")

  @Argument(help: "The card's PCI address, as in 0000:03:00.0.") var card: PCIAddress?
  @Flag(help: "Print JSON, one object a line.") var json = false
  @Option(help: .init("Look at the files of another machine, for tests.", visibility: .hidden))
  var root = ""

  func run() throws {
    let machine = MachineFiles(root: root)
    var findings = [
      machine.hugePages(), machine.lockedMemory(), machine.iommu(), machine.vfioModule(),
      machine.tap(),
    ]
    if let card { findings += machine.card("\(card)") }
    for finding in findings { output(json ? jsonLine(finding) : finding.text) }
    if findings.contains(where: { $0.state == .missing }) { throw ExitCode(1) }
  }
}

/// What was found of one thing; the names of the fields are part of the interface.
struct Finding: Encodable {
  /// Missing things keep a card from working; the others are worth knowing.
  enum State: String, Encodable { case ok, note, missing }

  var check: String
  var state: State
  var found: String
  /// The command that mends it.
  var mend: String?

  var text: String {
    let mark = [State.ok: "ok     ", .note: "note   ", .missing: "MISSING"][state] ?? ""
    return "\(mark) \(check.padded(14)) \(found)"
      + (mend.map { "\n        mend it with: \($0)" } ?? "")
  }
}

/// The checks, each of which reads some files of the kernel's.
struct MachineFiles {
  /// Where the files are, in tests.
  let root: String

  private func text(_ path: String) -> String? {
    (try? String(contentsOfFile: root + path, encoding: .utf8))?
      .trimmingCharacters(in: .whitespacesAndNewlines)
  }
  private func names(_ path: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: root + path)) ?? []).sorted()
  }
  private func link(_ path: String) -> String? {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: root + path))
      .flatMap { $0.split(separator: "/").last.map(String.init) }
  }
  private func exists(_ path: String) -> Bool {
    FileManager.default.fileExists(atPath: root + path)
  }

  // MARK: - The machine

  func hugePages() -> Finding {
    let folder = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
    let all = text(folder + "nr_hugepages").flatMap { Int($0) } ?? 0
    let free = text(folder + "free_hugepages").flatMap { Int($0) } ?? 0
    let found = "\(free) of \(all) huge pages of 2 MiB are free"
    // Two mempools and the rings of two cards.
    if free >= 16 { return Finding(check: "huge pages", state: .ok, found: found) }
    return Finding(
      check: "huge pages", state: .missing,
      found: found + "; a card through sysfs needs them, behind an IOMMU they only make it faster",
      mend: "sudo sysctl vm.nr_hugepages=\(max(512, all + 512))")
  }

  func lockedMemory() -> Finding {
    var limit = rlimit()
    unsafe getrlimit(__rlimit_resource_t(8), &limit)
    // Two cards with their mempools take some 30 MiB; of root nothing is asked.
    if geteuid() == 0 || limit.rlim_cur >= 128 << 20 {
      return Finding(check: "locked memory", state: .ok, found: "no limit, or 128 MiB and more")
    }
    return Finding(
      check: "locked memory", state: .missing,
      found:
        "an ordinary user may lock \(limit.rlim_cur >> 10) KiB; VFIO locks what a card can reach",
      mend: "echo \"$USER - memlock unlimited\" | sudo tee /etc/security/limits.d/ixy.conf"
        + "  # then log in again")
  }

  func iommu() -> Finding {
    let count = names("/sys/kernel/iommu_groups").count
    if count > 0 {
      return Finding(check: "IOMMU", state: .ok, found: "it has \(count) groups of devices")
    }
    return Finding(
      check: "IOMMU", state: geteuid() == 0 ? .note : .missing,
      found: "none is on: cards work as root alone, through sysfs, and can reach all memory",
      mend: "add intel_iommu=on iommu=pt (AMD: iommu=pt) to the kernel's command line, and VT-d or "
        + "AMD-Vi in the BIOS")
  }

  func vfioModule() -> Finding {
    if exists("/sys/bus/pci/drivers/vfio-pci") {
      return Finding(check: "vfio-pci", state: .ok, found: "the module is loaded")
    }
    return Finding(
      check: "vfio-pci", state: names("/sys/kernel/iommu_groups").isEmpty ? .note : .missing,
      found: "the module is not loaded", mend: "sudo modprobe vfio-pci")
  }

  func tap() -> Finding {
    exists("/dev/net/tun")
      ? Finding(check: "tap", state: .ok, found: "/dev/net/tun is there, for wire=tap")
      : Finding(
        check: "tap", state: .note, found: "/dev/net/tun is not there, which wire=tap needs",
        mend: "sudo modprobe tun")
  }

  // MARK: - A card

  func card(_ address: String) -> [Finding] {
    let folder = "/sys/bus/pci/devices/\(address)/"
    guard exists(folder) else {
      return [
        Finding(
          check: "card", state: .missing, found: "there is no device \(address)",
          mend: "ixy list")
      ]
    }
    func number(_ file: String) -> UInt16? {
      text(folder + file).flatMap { UInt16($0.dropFirst(2), radix: 16) }
    }
    let id = PCIIdentity(number("vendor") ?? 0, number("device") ?? 0)
    guard let driver = driverName(for: id) else {
      return [
        Finding(
          check: "card", state: .missing, found: "no driver of ours knows \(id)", mend: "ixy list")
      ]
    }
    let supported = Finding(
      check: "card", state: .ok, found: "\(id) is driven by \(driver)")
    return [supported, inUse(folder), way(address, folder)]
      + (link(folder + "iommu_group").map { group($0, address) } ?? []) + [
        numa(folder), cable(folder),
      ]
  }

  private func inUse(_ folder: String) -> Finding {
    let up = interfaces(folder).first { interface in
      let flags = text("\(interface)/flags").flatMap { Int($0.dropFirst(2), radix: 16) }
      return (flags ?? 0) & 1 == 1
    }
    if let name = up?.split(separator: "/").last {
      return Finding(
        check: "in use", state: .missing, found: "the kernel's interface \(name) is up",
        mend: "sudo ip link set \(name) down  # if nothing goes over it that you need")
    }
    return Finding(check: "in use", state: .ok, found: "no interface of it is up")
  }

  /// The folders of a card's interfaces; virtio's are those of a device below the card.
  private func interfaces(_ folder: String) -> [String] {
    let devices =
      [folder] + names(folder).filter { $0.hasPrefix("virtio") }.map { "\(folder)\($0)/" }
    return devices.flatMap { device in names(device + "net").map { "\(device)net/\($0)" } }
  }

  private func way(_ address: String, _ folder: String) -> Finding {
    let driver = link(folder + "driver")
    let hasGroup = link(folder + "iommu_group") != nil
    if driver == "vfio-pci" {
      return Finding(check: "kernel driver", state: .ok, found: "vfio-pci has it")
    }
    let name = driver ?? "no kernel driver"
    if hasGroup {
      return Finding(
        check: "kernel driver", state: .missing, found: "\(name) has it, and there is an IOMMU",
        mend: "sudo ixy bind --user $USER \(address)")
    }
    return Finding(
      check: "kernel driver", state: .ok,
      found: "\(name) has it; without an IOMMU it is taken when it is opened, as root")
  }

  private func group(_ group: String, _ address: String) -> [Finding] {
    let others = names("/sys/kernel/iommu_groups/\(group)/devices").filter { $0 != address }
    let bad = others.filter { other in
      let driver = link("/sys/bus/pci/devices/\(other)/driver")
      // Bridges are allowed, and so are devices that nobody drives.
      let isBridge = text("/sys/bus/pci/devices/\(other)/class")?.hasPrefix("0x0604") ?? false
      return !isBridge && driver != nil && driver?.hasPrefix("vfio") != true
    }
    var findings: [Finding] = []
    if let other = bad.first {
      findings.append(
        Finding(
          check: "IOMMU group", state: .missing,
          found: "group \(group) also has \(bad.joined(separator: ", ")), with a kernel driver",
          mend: "sudo ixy bind \(other)  # or put the card into another slot"))
    } else {
      findings.append(
        Finding(check: "IOMMU group", state: .ok, found: "group \(group) is ours alone"))
    }
    return findings + [rights(group, address)]
  }

  private func rights(_ group: String, _ address: String) -> Finding {
    let (node, container) = ("/dev/vfio/\(group)", "/dev/vfio/vfio")
    let lacking: (found: String, mend: String)? =
      if !exists(node) {
        ("\(node) is not there", "sudo ixy bind --user $USER \(address)")
      } else if unsafe access(root + node, R_OK | W_OK) != 0 {
        ("\(node) is not yours", "sudo chown $USER \(node)")
      } else if unsafe access(root + container, R_OK | W_OK) != 0 {
        ("\(container) is not for everybody", "sudo chmod 666 \(container)")
      } else {
        nil
      }
    return Finding(
      check: "rights", state: lacking == nil ? .ok : .missing,
      found: lacking?.found ?? "\(node) can be opened", mend: lacking?.mend)
  }

  private func numa(_ folder: String) -> Finding {
    let node = text(folder + "numa_node").flatMap { Int($0) } ?? -1
    if node < 0 {
      return Finding(check: "NUMA", state: .ok, found: "the card is on no node of its own")
    }
    let place = "/sys/devices/system/node/node\(node)/"
    let cores = text(place + "cpulist") ?? ""
    let found = "the card is on node \(node), with the cores \(cores.isEmpty ? "of none" : cores)"
    // Where they are on other nodes a card works, and is slower.
    let pages = place + "hugepages/hugepages-2048kB/"
    if let free = text(pages + "free_hugepages").flatMap({ Int($0) }), free < 16 {
      return Finding(
        check: "NUMA", state: .note, found: "\(found), and \(free) free huge pages",
        mend: "echo 512 | sudo tee \(pages)nr_hugepages")
    }
    let near = Cores(cores)?.intersection(.allowed).numbers
    if !cores.isEmpty, near?.isEmpty ?? true {
      return Finding(
        check: "NUMA", state: .note, found: "\(found), of which this process may use none",
        mend: "taskset -c \(cores) ixy ...")
    }
    return Finding(check: "NUMA", state: .ok, found: found)
  }

  private func cable(_ folder: String) -> Finding {
    let found = interfaces(folder).lazy.compactMap { interface in
      // Of an interface that is down the kernel does not say it.
      text("\(interface)/carrier").map { (name: interface.split(separator: "/").last ?? "", $0) }
    }.first
    guard let (name, carrier) = found else {
      return Finding(
        check: "link", state: .note, found: "only its driver can tell",
        mend: "ixy info CARD, once the rest is well")
    }
    return carrier == "1"
      ? Finding(check: "link", state: .ok, found: "\(name) has a link")
      : Finding(
        check: "link", state: .note, found: "\(name) has no link", mend: "look at cable and module")
  }
}
