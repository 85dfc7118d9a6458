// The first application: prints the size and the sender of ten frames. Needs no card, no root.
// swift run Hello
import Emulation
import Ixy

// A card in this process, on a thread of its own, with a source of frames for a cable.
let description = try CardDescription("emu:82599,wire=generator,size=100")
let (wire, address) = try PatchPanel().plugIn(description)
let emulation = EmulationThread()
let bus = emulation.add(try NIC82599(wire: wire, mac: address), wire: wire)
try emulation.start()

// From here on nothing differs from a real card, whose bus `try openCard(PCIAddress("0000:03:00.0")!, domain: domain)`
// would be.
let domain = DMADomain()
let card = try openDevice(bus, domain: domain)
let pool = try Mempool(domain: domain, buffers: 1024)
var queue = try card.receiveQueue(0, mempool: pool)
var batch = PacketBatch(capacity: 32)
print("\(card.name) with the driver \(card.driverName), address \(card.macAddress)")

var count = 0
while count < 10 {
  _ = try queue.receive(into: &batch, max: 10 - count)
  while let packet = batch.popFirst() {
    count += 1
    let sender = (6..<12).map { String(packet[$0], radix: 16) }.joined(separator: ":")
    print("frame \(count): \(packet.count) bytes from \(sender)")
  }
}
card.stop()
emulation.join()
