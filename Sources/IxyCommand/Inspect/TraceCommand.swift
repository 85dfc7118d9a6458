import ArgumentParser
import Emulation
import Foundation
import Ixy

/// The command `ixy trace`.
struct TraceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace",
    abstract: "Brings a card up and prints each register access.",
    discussion: """
      Each line is an access: what was done, the register's name, offset and value, the section of the 82599's \
      datasheet (§8 where none is known more exactly), the line of the driver, and the fields that are set, or \
      that changed. Then some frames are sent and received, with the descriptors of both rings; of virtio and \
      vmxnet3 only registers are shown.
      With html the result is one page that shows both rings turn, step by step:
      ixy trace --format html > trace.html
      """)

  enum Format: String, CaseIterable, ExpressibleByArgument { case text, json, html }

  @Argument(help: "A card; an emulated one with a loop for a cable if not given.")
  var card: CardName?
  @Option(help: "text, json (a line for each step) or html.") var format = Format.text
  @Option(
    in: 1...1000, help: "How many frames are sent, first one at a time, then sixteen (1 to 1000).")
  var frames = 68
  @Flag(help: "Take a card even when its interface is up, has an address or carries a route.")
  var force = false

  func run() throws {
    StopSignal.install()
    let domain = DMADomain()
    let (bus, work) = try open(domain)
    let tracer = TracingDevice(bus)
    let driver = driverName(for: try tracer.identity()) ?? ""
    let trace = try Trace(tracer, driver: driver)
    try bringUp(tracer, domain, trace, isIxgbe: driver == "ixgbe", work)
    let steps = trace.steps()
    switch format {
    case .text:
      var number = 0
      for step in steps {
        if step.kind != "note" { number += 1 }
        step.lines(number: number).forEach { output($0) }
      }
    case .json: steps.forEach { output($0) }
    case .html: output(try TracePage.html(steps, title: bus.name))
    }
  }

  /// The card, and what lets it work: an emulated one moves only when it is told to.
  private func open(_ domain: DMADomain) throws -> (any PCIDevice, work: () -> Void) {
    switch try card ?? CardName(typed: "emu:82599,wire=loop") {
    case .emulated(let description):
      let panel = PatchPanel()
      let (wire, address) = try panel.plugIn(description)
      try panel.checkLinks()
      let model = try NIC82599(
        wire: wire, mac: address, family: description.family.model, name: description.text)
      return (InProcessDevice(model), { while model.step() > 0 {} })
    case .pci(let address):
      return (try openCard(address, domain: domain, force: force), { usleep(1000) })
    case .vfioUser:
      throw ValidationError(
        "A card that another process serves cannot be traced: give emu:82599,wire=loop or a PCI card."
      )
    }
  }

  private func bringUp(
    _ tracer: TracingDevice, _ domain: DMADomain, _ trace: Trace, isIxgbe: Bool, _ work: () -> Void
  ) throws {
    // Where the 82599's datasheet has it.
    func section(_ number: String) -> String { isIxgbe ? " (§\(number))" : "" }
    trace.note("The driver resets the card and sets it up\(section("4.6.3")).")
    var configuration = DeviceConfiguration()
    configuration.ringEntries = 64
    let device = try openDevice(tracer, domain: domain, configuration: configuration)
    trace.note("It listens to every address.")
    try device.setPromiscuous(true)
    let pool = try Mempool(domain: domain, buffers: 512)
    if !trace.knowsRings { trace.note("Of this card only the registers are shown, not its rings.") }
    trace.note(
      "A receive ring: 64 descriptors, each with an empty buffer for the card\(section("4.6.7")).")
    trace.showsRings = true
    var receiver = try device.receiveQueue(0, mempool: pool)
    trace.note("A transmit ring: 64 descriptors, all empty\(section("4.6.8")).")
    var transmitter = try device.transmitQueue(0)
    trace.note("Is there a link?")
    let deadline = ContinuousClock.now + .seconds(10)
    while try !device.link().isUp, ContinuousClock.now < deadline { work() }
    let shared = NumberedFrame(
      size: 60, destination: device.macAddress, source: device.macAddress, vlan: nil, isIPv6: false,
      stream: 1)
    var source = FrameSource(
      .numbered(shared, .range(60...60), flows: 1),
      pool: try Mempool(domain: domain, buffers: 128))
    var sent = 0
    while sent < frames, !StopSignal.isRaised {
      let count = try exchange(frames: sent, &source, &transmitter, &receiver, trace, work)
      // A ring that stays full, for want of a link.
      if count == 0 { break }
      sent += count
    }
    trace.showsRings = false
    trace.note("The card is stopped.")
    device.stop()
  }

  /// Sends the next frames and takes what came back; returns how many were sent.
  private func exchange(
    frames sent: Int, _ source: inout FrameSource,
    _ transmitter: inout any TransmitQueue & ~Copyable,
    _ receiver: inout any ReceiveQueue & ~Copyable, _ trace: Trace, _ work: () -> Void
  ) throws -> Int {
    let count = min(sent < 4 ? 1 : 16, frames - sent)
    let isOne = count == 1
    let name = isOne ? "Frame \(sent + 1)" : "Frames \(sent + 1) to \(sent + count)"
    let (filled, them) = isOne ? ("a descriptor", "it") : ("descriptors", "them")
    trace.note("\(name): the driver fills \(filled), and rings the doorbell.")
    var batch = PacketBatch(capacity: 64)
    source.fill(&batch, upTo: count)
    let accepted = try transmitter.transmit(&batch)
    source.takeBack(batch.count)
    batch.removeAll()
    work()
    trace.note("\(name): the card has read \(them), sent \(them), and received what came back.")
    _ = try receiver.receive(into: &batch, max: 64)
    let received = batch.count
    batch.removeAll()
    _ = try transmitter.reclaim()
    let text =
      switch received {
      case 0: "Nothing came back."
      case 1: "The driver took 1 frame out, and gave the card an empty buffer for it."
      default:
        "The driver took \(received) frames out, and gave the card empty buffers for them."
      }
    trace.note(text, collected: true)
    return accepted
  }
}
