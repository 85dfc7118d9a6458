// A driver in one page: resets an 82599, gives it a ring, and sends one frame.
// swift run OwnDriver
import Emulation
import Ixy

let description = try CardDescription("emu:82599,wire=sink")
let (wire, address) = try PatchPanel().plugIn(description)
let model = try NIC82599(wire: wire, mac: address)
let card = InProcessDevice(model)  // no thread: it works when `model.step()` is called

let domain = DMADomain()
try card.attach(to: domain)
try card.setBusMaster(true)
let registers = try card.bar(0)
@MainActor func read(_ offset: Int) -> UInt32 { UInt32(registers.read(offset, width: 4)) }
@MainActor func write(_ value: UInt32, to offset: Int) {
  registers.write(UInt64(value), to: offset, width: 4)
}

// CTRL (§8.2.3.1.1): RST in bit 26 resets the card, and reads as 0 once it is over.
write(1 << 26, to: 0x00000)
while read(0x00000) & 1 << 26 != 0 {}

// A ring of eight descriptors of 16 bytes (TDBAL, TDBAH, TDLEN, TDH, TDT), and a page for the frame.
let ring = try domain.allocate(8 * 16)
let frame = try domain.allocate(4096)
write(UInt32(truncatingIfNeeded: ring.iova), to: 0x06000)
write(UInt32(ring.iova >> 32), to: 0x06004)
write(UInt32(ring.size), to: 0x06008)
write(0, to: 0x06010)
write(0, to: 0x06018)
write(1, to: 0x04A80)  // DMATXCTL: TE lets the transmitter work
write(1 << 25, to: 0x06028)  // TXDCTL: ENABLE starts this ring
while read(0x06028) & 1 << 25 == 0 {}

// The frame: to everybody, from us, of a type for experiments.
let length = 60
for i in 0..<length { unsafe frame.base.storeBytes(of: 0, toByteOffset: i, as: UInt8.self) }
for i in 0..<6 {
  unsafe frame.base.storeBytes(of: 0xFF, toByteOffset: i, as: UInt8.self)
  unsafe frame.base.storeBytes(of: address[i], toByteOffset: 6 + i, as: UInt8.self)
}
unsafe frame.base.storeBytes(of: UInt16(0x88B5).bigEndian, toByteOffset: 12, as: UInt16.self)

// The descriptor (§7.2.3.2.4): where the frame is; its length, that it is data (3 in bits 23:20), and EOP, IFCS,
// RS and DEXT in bits 24, 25, 27 and 29; and the length once more, as PAYLEN.
let command: UInt64 = 1 << 24 | 1 << 25 | 1 << 27 | 1 << 29 | 3 << 20
unsafe ring.base.storeBytes(of: frame.iova, as: UInt64.self)
unsafe ring.base.storeBytes(
  of: UInt64(length) << 46 | command | UInt64(length), toByteOffset: 8, as: UInt64.self)
write(1, to: 0x06018)  // TDT, the doorbell: descriptor 0 is the card's

// RS asked for a report: the card sets DD, bit 0 of the status, when it has sent the frame.
@MainActor func isDone() -> Bool {
  unsafe ring.base.load(fromByteOffset: 12, as: UInt32.self) & 1 == 1
}
while !isDone() { _ = model.step() }
print("The card has sent \(wire.counts.received) frame of \(length) bytes.")
