import CFuzz
import Glibc

/// What is fuzzed: runs one input and returns how many hostile operations that were.
struct Target {
  let name: String
  let run: (Choices) throws -> Int

  static var all: [Target] {
    [
      Target(name: "ixgbe", run: DriverTargets.ixgbe),
      Target(name: "ixgbe-in-place", run: DriverTargets.ixgbeInPlace),
      Target(name: "igb", run: DriverTargets.igb),
      Target(name: "e1000e", run: DriverTargets.e1000e),
      Target(name: "vmxnet3", run: DriverTargets.vmxnet3),
      Target(name: "virtio-split", run: DriverTargets.virtioSplit),
      Target(name: "virtio-packed", run: DriverTargets.virtioPacked),
      Target(name: "virtio-legacy", run: DriverTargets.virtioLegacy),
      Target(name: "vfio-user-server", run: VFIOUserTargets.server),
      Target(name: "vfio-user-client", run: VFIOUserTargets.client),
      Target(name: "pcap", run: ParserTargets.pcap),
      Target(name: "pcapng", run: ParserTargets.pcapng),
      Target(name: "text", run: ParserTargets.text),
      Target(name: "command-line", run: CommandTargets.commandLine),
      Target(name: "filter", run: CommandTargets.filter),
      Target(name: "frame", run: CommandTargets.frame),
    ]
  }

  static func find(_ name: String) -> Target? { all.first { $0.name == name } }

  /// The target that the command line names: a C function has no context to keep it in.
  static func named() -> Target? { find(CommandLine.arguments[1]) }
}

/// Runs targets with inputs from seeds or from files.
struct Runner {
  /// The longest input of a seeded run, in bytes.
  private static let inputLimit = 4096

  private var seed: UInt64 = 1
  private var operations = Int.max
  private var runs = Int.max
  private var seconds = 0.0
  private var files: [String] = []

  init(_ words: ArraySlice<String>) {
    var rest = words
    while let word = rest.popFirst() {
      switch word {
      case "--seed": seed = rest.popFirst().flatMap { UInt64($0) } ?? seed
      case "--operations": operations = rest.popFirst().flatMap { Int($0) } ?? operations
      case "--runs": runs = rest.popFirst().flatMap { Int($0) } ?? runs
      case "--seconds": seconds = rest.popFirst().flatMap { Double($0) } ?? seconds
      default: files.append(word)
      }
    }
    if seconds == 0, operations == .max, runs == .max { operations = 100_000 }
  }

  func run(_ targets: [Target]) throws {
    for target in targets {
      if files.isEmpty { try repeatRuns(of: target, seconds / Double(targets.count)) }
      for file in files { try replay(file, target) }
    }
  }

  /// Runs one seed after the other until there are enough.
  private func repeatRuns(of target: Target, _ seconds: Double) throws {
    let start = ContinuousClock.now
    var (done, count) = (0, 0)
    while done < operations, count < runs,
      seconds == 0 || ContinuousClock.now - start < .seconds(seconds)
    {
      let number = seed &+ UInt64(count)
      var random = Random(seed: number)
      fuzz_run_begin(target.name, number)
      done += try target.run(Choices(random.input(upTo: Self.inputLimit)))
      fuzz_run_end()
      count += 1
    }
    let time = ContinuousClock.now - start
    print("\(target.name): \(done) hostile operations in \(count) runs from seed \(seed), \(time)")
  }

  /// Runs the inputs of a list: lines of a target's name and the bytes as hexadecimal digits.
  ///
  /// A list without inputs, or with a line that is none, is an error: nobody would miss what is not run.
  static func replayKnown(_ path: String) throws {
    let inputs = try KnownInput.all(in: path)
    for (number, input) in inputs.enumerated() {
      fuzz_run_begin("\(input.target.name): known input \(number + 1)", 0)
      _ = try input.target.run(Choices(input.bytes))
      fuzz_run_end()
    }
    print("known inputs: \(inputs.count)")
  }

  /// Runs an input that was kept.
  private func replay(_ path: String, _ target: Target) throws {
    let bytes = try contents(of: path)
    fuzz_run_begin("\(target.name) \(path)", 0)
    let done = try target.run(Choices(bytes))
    fuzz_run_end()
    print("\(target.name): \(path), \(done) hostile operations")
  }
}
