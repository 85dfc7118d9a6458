import Glibc

// Forwards between two emulated cards for a given time, with link flaps, resets and pauses, and accounts for
// every frame, every buffer and all memory. It takes little of a processor: frames come in bursts.

/// The number after an option of the command line.
func option(_ name: String, default value: Double) -> Double {
  let words = CommandLine.arguments
  guard let place = words.firstIndex(of: name) else { return value }
  guard place + 1 < words.count, let number = Double(words[place + 1]), 0...1e9 ~= number else {
    say("Usage: Soak [--seconds N] [--rate FRAMES-PER-SECOND] [--seed N]")
    exit(64)
  }
  return number
}

let soak = try Soak(
  seconds: option("--seconds", default: 60), rate: Int(option("--rate", default: 5000)),
  seed: UInt64(option("--seed", default: 1)))
exit(try soak.run() ? 0 : 1)
