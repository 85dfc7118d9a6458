import ArgumentParser
import Foundation
import Ixy

/// The command `ixy info CARD`.
struct InfoCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "info",
    abstract: "Tells a card's link, address, counters and bus.",
    discussion: """
      The card is taken from the kernel and reset, as for every other command. With --registers it prints the \
      registers that drivers use by name and field; those that a read would change are left out, and of \
      arrays what is 0.
      """)

  @Argument(help: "A card; ixy --help has the forms.") var card: CardName
  @Flag(help: "Print the registers, decoded.") var registers = false
  @OptionGroup var cardOptions: CardOptions

  func run() throws {
    StopSignal.install()
    let bench = CardBench(cardOptions)
    let device = try bench.open([card], DeviceConfiguration())[0]
    try bench.waitForLinks()
    let bus = bench.buses[0]
    let info = try CardInfo(device, bus)
    output(cardOptions.json ? jsonLine(info) : info.text)
    if registers {
      for line in try RegisterLine.all(of: RegisterMap(of: device.driverName, bus), bus) {
        output(cardOptions.json ? jsonLine(line) : line.text)
      }
    }
    try bench.close()
  }
}

/// What a card is; the names of the fields are part of the interface.
private struct CardInfo: Encodable {
  var event = "info"
  var name: String
  var ids: String
  var driver: String
  var mac: String
  var link_mbit: Int
  var receive_queues: Int
  var transmit_queues: Int
  var counters: PortReport
  var pcie: String?
  var msix_vectors: Int?
  /// The words of the EEPROM that drivers read a version from (0x17, 0x1B, 0x2D, 0x2E).
  var eeprom_version: String?

  init(_ device: any EthernetDevice, _ bus: any PCIDevice) throws {
    name = device.name
    ids = "\(try bus.identity())"
    driver = device.driverName
    mac = "\(device.macAddress)"
    link_mbit = try device.link().megabitsPerSecond
    (receive_queues, transmit_queues) = device.queueCounts
    counters = PortReport(Port(device), device.statistics())
    if let place = try bus.capability(0x10) {
      // Link Status of the PCI Express capability: speed in bits 3:0, width in 9:4.
      let status = try bus.readConfig(place + 0x12, width: 2)
      let speeds = [1: "2.5", 2: "5", 3: "8", 4: "16", 5: "32"]
      let speed = speeds[Int(status & 0xF)].map { "\($0) GT/s" } ?? "unknown speed"
      pcie = "\(speed), \(status >> 4 & 0x3F) lanes"
    }
    if let place = try bus.capability(0x11) {
      msix_vectors = Int(try bus.readConfig(place + 2, width: 2) & 0x7FF) + 1
    }
    if driver == "ixgbe" {
      let bar = try bus.bar(0)
      eeprom_version = [0x17, 0x1B, 0x2D, 0x2E].map { word in
        Self.eepromWord(word, bar).map { hex($0, 4) } ?? "?"
      }.joined(separator: " ")
    }
  }

  /// Reads a word by EERD: START in bit 0, DONE in bit 1, the address in 15:2, the data in 31:16.
  private static func eepromWord(_ address: Int, _ bar: BAR) -> Int? {
    let register = 0x10014
    bar.write(UInt64(address << 2 | 1), to: register, width: 4)
    for _ in 0..<1000 {
      let value = bar.read(register, width: 4)
      if value & 2 != 0 { return Int(value >> 16 & 0xFFFF) }
      usleep(5)
    }
    return nil
  }

  var text: String {
    let link = link_mbit > 0 ? "up, \(link_mbit) Mbit/s" : "down"
    let rows: [(String, String?)] = [
      ("card", "\(name) (\(ids))"), ("driver", driver), ("address", mac), ("link", link),
      ("queues", "\(receive_queues) to receive, \(transmit_queues) to send"),
      (
        "counters",
        "received \(counters.rx_packets), sent \(counters.tx_packets), dropped "
          + "\(counters.rx_dropped), errors \(counters.rx_errors)"
      ),
      ("PCIe", pcie), ("MSI-X", msix_vectors.map { "\($0) vectors" }),
      ("EEPROM", eeprom_version.map { "version words \($0)" }),
    ]
    return rows.compactMap { name, value in value.map { name.padded(10) + $0 } }
      .joined(separator: "\n")
  }
}

/// One register and what it holds; the names of the fields are part of the interface.
private struct RegisterLine: Encodable {
  var register: String
  var offset: String
  var value: String
  var fields: String
  var title: String
  var section: String

  var text: String {
    "\(register.padded(14)) \(offset)  \(value.padded(10))  \(section.padded(11)) \(title)"
      + (fields.isEmpty ? "" : "\n" + String(repeating: " ", count: 14) + " " + fields)
  }

  /// Those of a card that have a value to show.
  static func all(of map: RegisterMap, _ bus: any PCIDevice) throws -> [RegisterLine] {
    var bars: [Int: BAR] = [:]
    return try map.entries.compactMap { entry in
      let register = entry.register
      if register.changesWhenRead { return nil }
      let bar = try bars[entry.bar] ?? bus.registers(entry.bar)
      bars[entry.bar] = bar
      // Where virtio's structures are is the device's word.
      if entry.offset + register.width > bar.size { return nil }
      let value = UInt32(truncatingIfNeeded: bar.read(entry.offset, width: register.width))
      if register.count > 1, value == 0 { return nil }
      return RegisterLine(
        register: entry.name, offset: "0x" + hex(entry.offset, 5),
        value: "0x" + hex(Int(value), 2 * register.width), fields: register.describe(value),
        title: register.title, section: map.section(of: register))
    }
  }
}
