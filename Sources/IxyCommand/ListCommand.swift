import ArgumentParser
import Foundation
import Ixy

/// The command `ixy list`.
struct ListCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the network cards of this machine.")

  @Flag(help: "Print JSON, one object a line.") var json = false

  func run() throws {
    let cards = try networkCards()
    if json {
      for card in cards { output(card) }
      return
    }
    if cards.isEmpty { tell("There is no PCI network card on this machine.") }
    for card in cards {
      output(
        "\(card.address)  \(card.ids)  \(card.name)\n"
          + "    kernel driver \(card.kernel_driver ?? "none"), "
          + "interfaces \(card.interfaces.isEmpty ? "none" : card.interfaces.joined(separator: " ")), "
          + "NUMA node \(card.numa_node.map(String.init) ?? "none"), "
          + "IOMMU group \(card.iommu_group.map(String.init) ?? "none"), "
          + "ixy driver \(card.driver ?? "none")")
    }
  }

  private func networkCards() throws -> [NetworkCard] {
    let root = "/sys/bus/pci/devices"
    let names = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    let database = PCINames()
    return names.sorted().compactMap { NetworkCard(address: $0, in: "\(root)/\($0)", database) }
  }
}

/// A network card as sysfs shows it; the names of the fields are part of the interface.
struct NetworkCard: Encodable {
  var address: String
  var ids: String
  var name: String
  /// The driver of ours that would take it.
  var driver: String?
  var kernel_driver: String?
  var interfaces: [String]
  var numa_node: Int?
  var iommu_group: Int?

  /// Reads a card's folder; nil when it is no network card.
  init?(address: String, in folder: String, _ names: PCINames) {
    func line(_ file: String) -> String? {
      (try? String(contentsOfFile: "\(folder)/\(file)", encoding: .utf8))?
        .trimmingCharacters(in: .whitespacesAndNewlines)
    }
    func link(_ file: String) -> String? {
      (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\(file)"))
        .flatMap { $0.split(separator: "/").last.map(String.init) }
    }
    func number(_ file: String) -> UInt16? {
      line(file).flatMap { UInt16($0.dropFirst(2), radix: 16) }
    }
    guard line("class")?.hasPrefix("0x02") == true, let vendor = number("vendor"),
      let device = number("device")
    else { return nil }
    let identity = PCIIdentity(vendor, device)
    self.address = address
    ids = "\(identity)"
    name = names.name(of: identity)
    driver = driverName(for: identity)
    kernel_driver = link("driver")
    let folders =
      [folder]
      + ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [])
      .filter { $0.hasPrefix("virtio") }.map { "\(folder)/\($0)" }
    interfaces = folders.flatMap {
      (try? FileManager.default.contentsOfDirectory(atPath: "\($0)/net")) ?? []
    }.sorted()
    numa_node = line("numa_node").flatMap(Int.init).flatMap { $0 < 0 ? nil : $0 }
    iommu_group = link("iommu_group").flatMap(Int.init)
  }
}

/// The names of PCI devices, from the database that pciutils brings, where it is installed.
struct PCINames {
  private let lines: [Substring]

  init() {
    let paths = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"]
    let text = paths.lazy.compactMap { try? String(contentsOfFile: $0, encoding: .utf8) }.first
    lines = text?.split(separator: "\n") ?? []
  }

  /// "Intel Corporation 82599ES ...", or what is known without the database.
  func name(of id: PCIIdentity) -> String {
    let parts = "\(id)".split(separator: ":")
    guard let start = lines.firstIndex(where: { $0.hasPrefix(parts[0] + "  ") }) else {
      return driverName(for: id).map { "a card for \($0)" } ?? "unknown"
    }
    let vendor = lines[start].dropFirst(6)
    let devices = lines[(start + 1)...].prefix { $0.hasPrefix("\t") }
    let device = devices.first { $0.hasPrefix("\t" + parts[1] + "  ") }?.dropFirst(7)
    return "\(vendor) \(device ?? "unknown device")"
  }
}
