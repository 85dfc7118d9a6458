import ArgumentParser
import Emulation
import Ixy

/// Options of every command that drives cards.
struct CardOptions: ParsableArguments {
  @Flag(
    help:
      "Take a card even when its interface is up, has an address, carries a route or is out of sight."
  )
  var force = false

  @Flag(
    help: "Take a card that vfio-pci has without an IOMMU, too: it can reach all of the memory.")
  var withoutIommu = false

  @Flag(help: "Print JSON, one object a line.")
  var json = false
}

/// The option of every command that runs on.
struct MetricsOptions: ParsableArguments {
  @Option(help: "Serve the counters for Prometheus at this address, as in 127.0.0.1:9000.")
  var metrics: MetricsAddress?
}

/// The option of every command that waits for frames.
struct InterruptOptions: ParsableArguments {
  @Option(
    help: """
      auto: polls while frames come and sleeps when none has come for 100 microseconds; on: sleeps as soon as \
      no frame is there; off: polls always.
      """)
  var interrupts = InterruptMode.auto
}

extension InterruptMode: ExpressibleByArgument {}

/// Where memory and threads are.
struct MemoryOptions: ParsableArguments {
  @Option(
    help: """
      The NUMA node of memory and threads: auto, as if not given, is the cards' own, off leaves it to the kernel, \
      a number is that node and no other.
      """)
  var numa: NUMAChoice?
}

/// Which NUMA node a command uses.
enum NUMAChoice: TypedValue, Equatable {
  case auto
  case off
  case node(Int)

  init(typed text: String) throws {
    switch text {
    case "auto": self = .auto
    case "off": self = .off
    default:
      guard let node = Int(text), 0..<1024 ~= node else {
        throw ValidationError("give auto, off or the number of a node, as in 0.")
      }
      self = .node(node)
    }
  }
}

extension Duration: TypedValue {
  /// Reads a length of time: `5s`, `500ms`, `2m`; a plain number is seconds.
  init(typed text: String) throws {
    let units: [(suffix: String, seconds: Double)] = [
      ("ms", 0.001), ("us", 0.000_001), ("s", 1), ("m", 60), ("h", 3600), ("", 1),
    ]
    let unit = units.first { text.hasSuffix($0.suffix) }
    guard let unit, let number = Double(text.dropLast(unit.suffix.count)),
      number > 0, number.isFinite, number * unit.seconds < 1e9
    else { throw ValidationError("give a time of more than 0, as in 5s, 500ms or 2m.") }
    self = .seconds(number * unit.seconds)
  }
}

extension FrameRate: TypedValue {
  /// Reads frames or bits a second: `1Mpps`, `500Mbit`.
  init(typed text: String) throws {
    try self.init(
      FrameRate(text), orGive: "frames or bits a second, as in 20000, 1Mpps or 500Mbit.")
  }
}

extension Cores: TypedValue {
  /// Reads the kernel's way of writing them: `2,3` or `4-7`.
  init(typed text: String) throws {
    try self.init(Cores(text), orGive: "the numbers of processors, as in 2,3 or 4-7.")
  }
}

extension PCIAddress: TypedValue {
  /// Reads `0000:03:00.0` or `03:00.0`.
  init(typed text: String) throws {
    try self.init(PCIAddress(text), orGive: "a PCI address, as in 0000:03:00.0; ixy list has them.")
  }
}

extension MACAddress: TypedValue {
  /// Reads six bytes.
  init(typed text: String) throws {
    try self.init(MACAddress(text), orGive: "six bytes, as in 02:00:00:00:00:01.")
  }
}
