// Threads queues THREADS PACKETS [ROUNDS]    forwards over a stand-in card, a queue pair a thread
// Threads pool own|other PACKETS             allocates, hands over, frees: within a part, or to another one
// Threads pool alone PACKETS                 allocates and frees, in a pool that nobody shares
// Threads ring one|many PACKETS              hands packets between threads, and looks after every one
//
// Each prints a line; `measure` counts instructions with them, and compares.
let arguments = CommandLine.arguments
func number(_ i: Int) -> Int { arguments.indices.contains(i) ? Int(arguments[i]) ?? 0 : 0 }

switch (arguments.dropFirst().first, arguments.dropFirst(2).first) {
case ("queues", _):
  try measureQueues(upTo: number(2), packets: number(3), rounds: max(1, number(4)))
case ("pool", let kind?): try measurePool(kind, packets: number(3))
case ("ring", let kind?): try soakRing(isShared: kind == "many", packets: number(3))
default: fatalError("see the top of main.swift")
}
