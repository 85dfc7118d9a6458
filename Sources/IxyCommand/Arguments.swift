import ArgumentParser
import Emulation
import Ixy

/// A length of time as users write it: `5s`, `500ms`, `2m`; a plain number is seconds.
struct DurationArgument: ExpressibleByArgument {
  let duration: Duration

  init?(argument: String) {
    let units: [(suffix: String, seconds: Double)] = [
      ("ms", 0.001), ("us", 0.000_001), ("s", 1), ("m", 60), ("h", 3600), ("", 1),
    ]
    let unit = units.first { argument.hasSuffix($0.suffix) }
    guard let unit, let number = Double(argument.dropLast(unit.suffix.count)),
      number > 0, number.isFinite, number * unit.seconds < 1e9
    else { return nil }
    duration = .seconds(number * unit.seconds)
  }
}

/// A rate as users write it: `1Mpps`, `500Mbit`; a plain number is frames a second.
struct RateArgument: ExpressibleByArgument {
  let rate: FrameRate

  init?(argument: String) {
    guard let rate = FrameRate(argument) else { return nil }
    self.rate = rate
  }
}

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

  @Option(help: "Serve the counters for Prometheus at this address, as in 127.0.0.1:9000.")
  var metrics: String?
}

/// Where memory and threads are.
struct MemoryOptions: ParsableArguments {
  @Option(
    help: """
      The NUMA node of memory and threads: auto is the cards' own, off leaves it to the kernel, a number is that \
      node and no other.
      """)
  var numa = NUMAChoice.auto
}

/// Which NUMA node a command uses.
enum NUMAChoice: ExpressibleByArgument, Equatable {
  case auto
  case off
  case node(Int)

  init?(argument: String) {
    switch argument {
    case "auto": self = .auto
    case "off": self = .off
    default:
      guard let node = Int(argument), 0..<1024 ~= node else { return nil }
      self = .node(node)
    }
  }

  /// What the help shows.
  var defaultValueDescription: String { "auto" }
}

extension Cores: ExpressibleByArgument {
  /// Parses the kernel's way of writing them.
  public init?(argument: String) { self.init(argument) }
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

/// Checks a number that a user gave, as argument errors are reported: exit status 64.
func require(_ value: Int, in range: ClosedRange<Int>, _ option: String) throws {
  if range.contains(value) { return }
  throw ValidationError(
    "\(option): \(value) is not between \(range.lowerBound) and \(range.upperBound).")
}
