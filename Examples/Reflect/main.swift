// Sends every frame back to where it came from, and checks that none is lost on the way.
// swift run Reflect
import Emulation
import Ixy

let frames: UInt64 = 10_000
let description = try CardDescription("emu:82599,wire=generator,count=\(frames),flows=4")
let (wire, address) = try PatchPanel().plugIn(description)
let emulation = EmulationThread()
let bus = emulation.add(try NIC82599(wire: wire, mac: address), wire: wire)
try emulation.start()

let domain = DMADomain()
let card = try openDevice(bus, domain: domain)
let pool = try Mempool(domain: domain, buffers: 2048)
var receiver = try card.receiveQueue(0, mempool: pool)
var transmitter = try card.transmitQueue(0)
var batch = PacketBatch(capacity: 32)

/// Exchanges the two addresses at the start of a frame.
func turnRound(_ packet: inout Packet) {
  for i in 0..<6 { (packet[i], packet[6 + i]) = (packet[6 + i], packet[i]) }
}

var sent: UInt64 = 0
while sent < frames {
  _ = try receiver.receive(into: &batch, max: 32)
  batch.forEach { turnRound(&$0) }
  // What the ring has no room for stays in the batch, and goes next time: nothing is lost here.
  while !batch.isEmpty { sent += UInt64(try transmitter.transmit(&batch)) }
}
while try transmitter.reclaim() > 0 {}
let counts = emulation.exclusively { wire.counts }
print("\(counts.sent) frames came, \(counts.received) went back, \(counts.lost) were lost")
card.stop()
emulation.join()
