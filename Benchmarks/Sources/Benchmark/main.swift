// Benchmark count|time [NAME=LIBRARY ...]: measures every card, design and batch size.
//
// A line each: card, design, language, batch, nanoseconds. With `count`, under callgrind, the line's place says
// which dump has its instructions.
let arguments = CommandLine.arguments.dropFirst()
guard let mode = arguments.first, mode == "count" || mode == "time" else {
  fatalError("Usage: Benchmark count|time [NAME=LIBRARY ...]; see Benchmarks/run")
}
let libraries = arguments.dropFirst().map { argument in
  let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
  guard parts.count == 2, let library = CForwarder(name: parts[0], path: parts[1]) else {
    fatalError("\(argument): no such library")
  }
  return library
}
var meter = Meter(mode == "count" ? .count : .time, rounds: 31)
try measureIxgbe(&meter, libraries)
try measureGigabit(&meter)
try measureVmxnet3(&meter)
try measureVirtioSplit(&meter)
try measureVirtioPacked(&meter)
// Drivers for other rings follow here: a file each, as Ixgbe.swift; see README.md.
try measureEmulatedCard(&meter)
meter.report()
