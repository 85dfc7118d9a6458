import ArgumentParser
import Emulation
import Ixy
import VFIOUser

/// The command `ixy emulate 82599 --socket PATH --wire generator,count=200000`.
struct EmulateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "emulate",
    abstract: "Serves emulated cards over vfio-user.",
    discussion: """
      Give --socket and --wire once for each card. The sockets are there when the cards are ready, and \
      gone when the command ends. QEMU takes one by -device vfio-user-pci (see \
      Documentation/emulated-82599.md), other commands of ixy as vfio-user:PATH.
      """)

  @Argument(help: "The kind of card: 82599, x540 or x550.") var family: String
  @Option(help: "Where to serve the card.") var socket: [String]
  @Option(help: "Its wire, as in generator,count=1000 or link,peer=x.") var wire: [String] = []
  @Flag(help: "Every register access is a message: exact and slow.") var noSharedTails = false
  @Flag(help: "Ends when the client has gone.") var once = false
  @Flag(help: "Print JSON, one object a line.") var json = false

  func validate() throws {
    if wire.count > 1 || socket.count > 1, wire.count != socket.count {
      throw ValidationError(
        "There are \(socket.count) --socket and \(wire.count) --wire: give one of each for each card."
      )
    }
    do { _ = try cards() } catch { throw ValidationError("\(error)") }
  }

  private func cards() throws(DeviceError) -> [CardDescription] {
    try socket.indices.map { i throws(DeviceError) in
      try CardDescription(family: family, wire: i < wire.count ? wire[i] : "loop")
    }
  }

  func run() throws {
    StopSignal.install()
    let panel = PatchPanel()
    var servers: [VFIOUserServer] = []
    var wires: [any Wire] = []
    for (path, description) in zip(socket, try cards()) {
      let (wire, address) = try panel.plugIn(description)
      let model = try NIC82599(
        wire: wire, mac: address, family: description.family.model, name: "vfio-user:\(path)",
        sharesQueueRegisters: !noSharedTails)
      model.onReport = { tell($0) }
      let server = try VFIOUserServer(model: model, path: path, sharesPages: !noSharedTails)
      server.onReport = { tell($0) }
      servers.append(server)
      wires.append(wire)
    }
    try panel.checkLinks()
    var hadClient = false
    VFIOUserServer.run(servers, extra: wires.compactMap(\.readiness)) {
      let hasClient = servers.contains { $0.hasClient }
      hadClient = hadClient || hasClient
      return StopSignal.isRaised || once && hadClient && !hasClient
    }
    // The counts also tell how much was lost when a wire could not be closed well.
    defer { for wire in wires { report(wire) } }
    try wires.closeAll()
  }

  private func report(_ wire: any Wire) {
    let counts = wire.counts
    if json {
      output(WireEvent(wire: WireReport(counts)))
    } else {
      output(
        "wire \(wire.kind): gave the card \(counts.sent) frames, took \(counts.received) from it, "
          + "\(counts.lost) lost, \(counts.reordered) reordered")
    }
  }
}

/// The counts of a wire in JSON; the names are part of the interface.
struct WireReport: Encodable {
  var sent: UInt64
  var received: UInt64
  var lost: UInt64
  var reordered: UInt64

  init(_ counts: WireCounts) {
    sent = counts.sent
    received = counts.received
    lost = counts.lost
    reordered = counts.reordered
  }
}

private struct WireEvent: Encodable {
  var event = "summary"
  var wire: WireReport
}
