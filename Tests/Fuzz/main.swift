import CFuzz
import Glibc

// Hostile devices, peers, files and users. A run is a function of its input alone, which is made from a seed, read
// from a file, or comes from libFuzzer (with -D FUZZING -sanitize=fuzzer).

signal(SIGPIPE, SIG_IGN)
let words = Array(CommandLine.arguments.dropFirst())
guard let name = words.first,
  name == "all" || Target.find(name) != nil || name == "known" && words.count > 1
else {
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
  do {
    if name == "known" {
      for list in words.dropFirst() { try Runner.replayKnown(list) }
    } else {
      try Runner(words.dropFirst()).run(Target.all.filter { $0.name == name || name == "all" })
    }
  } catch {
    let message = "Error: \(error)\n"
    write(2, message, message.utf8.count)
    exit(1)
  }
#endif
