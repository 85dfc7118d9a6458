import ArgumentParser
import Emulation
import Foundation
import Ixy
import VFIOUser

/// Opens the cards of a command, whatever they are, in one domain.
final class CardBench {
  let domain = DMADomain()
  private(set) var devices: [any EthernetDevice] = []
  /// How each device is reached.
  private(set) var buses: [any PCIDevice] = []
  /// The cards, to be reported.
  var ports: [Port] { zip(devices, buses).map { Port($0, $1) } }
  private let force: Bool
  private let allowsUnprotected: Bool
  private let numa: NUMAChoice
  /// The NUMA node that memory and threads are on; nil leaves it to the kernel.
  private(set) var node: Int?
  private let panel = PatchPanel()
  /// Where the emulated cards run.
  let emulation = EmulationThread()
  /// The wires of the emulated cards, in the order of the cards.
  private(set) var wires: [any Wire] = []

  /// A bench whose cards are all emulated needs no options.
  init(_ options: CardOptions? = nil, numa: NUMAChoice = .auto) {
    force = options?.force ?? false
    allowsUnprotected = options?.withoutIommu ?? false
    self.numa = numa
  }

  /// The processors for threads: those of the node that this process may use, or all of them.
  var cores: Cores {
    let near = node.flatMap { Cores.ofNode($0) }?.intersection(.allowed)
    return near.flatMap { $0.numbers.isEmpty ? nil : $0 } ?? .allowed
  }

  /// Opens cards; the files and sockets of emulated ones before a real one is touched.
  func open(_ cards: [CardName], _ configuration: DeviceConfiguration) throws
    -> [any EthernetDevice]
  {
    var buses: [(any PCIDevice)?] = []
    for card in cards { buses.append(try emulated(card)) }
    try panel.checkLinks()
    for (i, card) in cards.enumerated() {
      if case .pci(let address) = card {
        buses[i] = try openCard(
          address, domain: domain, force: force, allowsUnprotected: allowsUnprotected)
      }
    }
    if !wires.isEmpty { try emulation.start() }
    try chooseNode(buses.compactMap { $0 })
    for bus in buses {
      if let bus {
        self.buses.append(bus)
        devices.append(try openDevice(bus, domain: domain, configuration: configuration))
      }
    }
    return devices
  }

  /// Decides where memory is, before there is any.
  private func chooseNode(_ buses: [any PCIDevice]) throws {
    switch numa {
    case .off: domain.placeAnywhere()
    case .node(let number):
      try domain.place(onNode: number, strictly: true)
      node = number
    case .auto:
      let nodes = buses.compactMap { bus in
        (bus as? any NUMADevice)?.numaNode.map { (name: bus.name, node: $0) }
      }
      node = nodes.first?.node
      if let first = nodes.first, let other = nodes.first(where: { $0.node != first.node }) {
        tell(
          "\(first.name) is on NUMA node \(first.node), \(other.name) on node \(other.node): memory and threads "
            + "are on node \(first.node), and the other card is slower. Put both cards on one node."
        )
      }
    }
  }

  /// Waits until every card has its link; a link that stays down for ten seconds is only reported.
  func waitForLinks() throws {
    let deadline = ContinuousClock.now + .seconds(10)
    for device in devices {
      while try !device.link().isUp, !StopSignal.isRaised {
        if ContinuousClock.now >= deadline {
          tell("\(device.name): there is no link after 10 s; going on without.")
          break
        }
        usleep(1000)
      }
    }
  }

  /// Stops the cards, and what is emulated; throws what went wrong at the wires.
  func close() throws {
    for device in devices { device.stop() }
    try emulation.stop()
  }

  private func emulated(_ card: CardName) throws -> (any PCIDevice)? {
    switch card {
    case .pci: return nil
    case .vfioUser(let path): return try VFIOUserDevice(path: path, name: "vfio-user:\(path)")
    case .emulated(let description):
      let (wire, address) = try panel.plugIn(description)
      let model = try NIC82599(
        wire: wire, mac: address, family: description.family.model, name: description.text)
      model.onReport = { tell($0) }
      wires.append(wire)
      return emulation.add(model, wire: wire)
    }
  }
}

/// A card, as the user writes it.
enum CardName: TypedValue {
  case pci(PCIAddress)
  case emulated(CardDescription)
  case vfioUser(path: String)

  init(typed text: String) throws {
    if text.hasPrefix(CardDescription.prefix) {
      do {
        self = .emulated(try CardDescription(text))
      } catch .refused(_, let found, let advice) {
        throw ValidationError("\(found). \(advice)")
      }
    } else if text.hasPrefix("vfio-user:") {
      let path = String(text.dropFirst("vfio-user:".count))
      if path.isEmpty {
        throw ValidationError("give the path of a socket, as in vfio-user:/tmp/nic.")
      }
      self = .vfioUser(path: path)
    } else if let address = PCIAddress(text) {
      self = .pci(address)
    } else {
      throw ValidationError(
        "it is no card. Cards are 0000:03:00.0 (see ixy list), emu:82599,wire=... or vfio-user:PATH."
      )
    }
  }
}

extension CardFamily {
  /// The model of a family.
  var model: NIC82599.Family {
    switch self {
    case .nic82599: .i82599
    case .x540: .x540
    case .x550: .x550
    }
  }
}
