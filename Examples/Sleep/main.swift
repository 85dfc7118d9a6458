// Sleeps until a frame comes: interrupts while the line is quiet, polling while it is busy.
// swift run Sleep
import Emulation
import Ixy

let description = try CardDescription("emu:82599,wire=generator,rate=1000")
let (wire, address) = try PatchPanel().plugIn(description)
let emulation = EmulationThread()
let bus = emulation.add(try NIC82599(wire: wire, mac: address), wire: wire)
try emulation.start()

let domain = DMADomain()
let card = try openDevice(bus, domain: domain)
let pool = try Mempool(domain: domain, buffers: 1024)
// One set of things to wait for; the card's interrupts come first, its queues after.
var waiter = try QueueWaiter(mode: .auto)
let interrupts = try waiter.enableInterrupts(of: card)
try waiter.add(interrupts?.receive[0])
var queue = try card.receiveQueue(0, mempool: pool)
var batch = PacketBatch(capacity: 32)

var (received, looks) = (0, 0)
while received < 1000 {
  let count = try queue.receive(into: &batch, max: 32)
  batch.removeAll()
  received += count
  looks += 1
  try waiter.wait(moved: count)
}
print("\(received) frames in \(looks) looks at the ring; slept \(waiter.sleeps) times")
card.stop()
emulation.join()
