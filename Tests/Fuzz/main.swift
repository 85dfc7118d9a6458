import CFuzz
import Glibc

// Hostile devices, peers, files and users. A run is a function of its input alone, which is made from a seed, read
// from a file, or comes from libFuzzer (with -D FUZZING -sanitize=fuzzer).

signal(SIGPIPE, SIG_IGN)
let words = Array(CommandLine.arguments.dropFirst())
guard let name = words.first, ["all", "known"].contains(name) || Target.find(name) != nil else {
  print("Usage: Fuzz TARGET|all [--seed N] [--operations N | --runs N | --seconds N] [FILE...]")
  print("       Fuzz known LIST")
  print("Targets: \(Target.all.map(\.name).joined(separator: ", "))")
  exit(64)
}

#if FUZZING
  // The target's name is not for libFuzzer.
  var count = CommandLine.argc - 1
  var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv + 1
  exit(
    LLVMFuzzerRunDriver(&count, &arguments) { bytes, size in
      let input = Choices(Array(UnsafeBufferPointer(start: bytes, count: size)))
      do { _ = try Target.named()?.run(input) } catch { fatalError("\(error)") }
      return 0
    })
#else
  if name == "known" {
    for list in words.dropFirst() { try Runner.replayKnown(list) }
    exit(0)
  }
  try Runner(words.dropFirst()).run(Target.all.filter { $0.name == name || name == "all" })
#endif
