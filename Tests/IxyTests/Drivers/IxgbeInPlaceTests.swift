import CIxy
import Emulation
import Testing

@testable import Ixy

@Suite struct IxgbeInPlaceTests {
  /// Forwards from the card to itself until nothing comes.
  private func run(
    _ bench: IxgbeTestBench, _ forwarder: inout IxgbeInPlaceForwarder, max: Int = 32,
    _ body: (inout InPlaceFrame) -> Verdict = { _ in .send }
  ) {
    for _ in 0..<200 {
      bench.settle()
      forwarder.forward(max: max, body)
    }
    bench.settle()
  }

  @Test(arguments: [1, 7, 32, 512])
  func `frames leave byte for byte, in order, many times around the ring`(max: Int) throws {
    let bench = try IxgbeTestBench()
    var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
    let frames = (0..<190).map { frame($0, size: 60 + 53 * $0 % 1458) }
    bench.wire.incoming = frames
    run(bench, &forwarder, max: max)
    #expect(bench.wire.outgoing == frames)
    let counts = bench.device.statistics()
    let bytes = UInt64(frames.reduce(0) { $0 + $1.count })
    #expect(counts.receivedPackets == 190 && counts.transmittedPackets == 190)
    #expect(counts.receivedBytes == bytes && counts.transmittedBytes == bytes)
    #expect(forwarder.pending() == 0)
  }

  @Test func `a dropped frame is not sent, and its descriptor comes back`() throws {
    let bench = try IxgbeTestBench()
    var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
    let frames = (0..<300).map { frame($0) }
    bench.wire.incoming = frames
    var number = 0
    run(bench, &forwarder) { _ in
      number += 1
      return number % 3 == 0 ? .send : .drop
    }
    #expect(bench.wire.outgoing == stride(from: 2, to: 300, by: 3).map { frames[$0] })
    #expect(bench.device.statistics().receivedPackets == 300)
    #expect(bench.device.statistics().transmittedPackets == 100)
  }

  @Test func `what the body changes is sent, its length too`() throws {
    let bench = try IxgbeTestBench()
    var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
    bench.wire.incoming = [frame(1, size: 100)]
    run(bench, &forwarder) { frame in
      let old = frame.count
      frame.count = 1500
      for i in old..<1500 { frame[i] = 7 }
      frame[1] = 9
      return .send
    }
    var expected = frame(1, size: 100) + [UInt8](repeating: 7, count: 1400)
    expected[1] = 9
    #expect(bench.wire.outgoing == [expected])
  }

  @Test func `a frame over the MTU and 18 bytes is an error, and those around it pass`() throws {
    let bench = try IxgbeTestBench()
    var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
    bench.wire.incoming = [frame(1, size: 1518), frame(2, size: 1519), frame(3)]
    run(bench, &forwarder)
    #expect(bench.wire.outgoing == [frame(1, size: 1518), frame(3)])
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test func `a frame of several descriptors is thrown away whole`() throws {
    let bench = try IxgbeTestBench()
    var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
    bench.wire.incoming = [frame(1)]
    run(bench, &forwarder)
    // The device puts one over three buffers, whatever MAXFRS says.
    let bytes = LegacyRing(forwarder)
    bytes.put(0x0000_0001_0000_0800, at: 1)
    bytes.put(0x0000_0001_0000_0800, at: 2)
    forwarder.forward(max: 32) { _ in .send }
    bytes.put(0x0000_0003_0000_0100, at: 3)
    bytes.put(0x0000_0003_0000_0040, at: 4)
    forwarder.forward(max: 32) { _ in .send }
    bench.settle()
    #expect(bench.wire.outgoing.map(\.count) == [60, 64])
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test(
    arguments: [
      0x0000_0003_0000_0000,  // no bytes
      0x0000_0003_0000_000D,  // shorter than a header
      0x0000_0003_0000_0801,  // longer than its buffer
      0x0000_0003_0000_FFFF,
      0x0000_0103_0000_0040,  // CE or RXE
      0x0000_2003_0000_0040,
      0xFFFF_FFFF_FFFF_FFFF,
    ] as [UInt64])
  func `a descriptor that cannot be right is counted, not believed`(word: UInt64) throws {
    let bench = try IxgbeTestBench()
    var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
    let ring = LegacyRing(forwarder)
    ring.put(word, at: 0)
    ring.put(0x0000_0003_0000_0040, at: 1)
    #expect(forwarder.forward(max: 32) { _ in .send } == 1)
    bench.settle()
    #expect(bench.wire.outgoing.map(\.count) == [64])
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test(arguments: [1, 63, 64, 1000, UInt32.max])
  func `a head that cannot be right moves nothing`(head: UInt32) throws {
    let bench = try IxgbeTestBench()
    var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
    let tail = bench.device.bar[IxgbeRingRegisters.receive(0).tail]
    unsafe ixy_store32(forwarder.head, head)
    #expect(forwarder.forward(max: 32) { _ in .send } == 0)
    #expect(bench.device.bar[IxgbeRingRegisters.receive(0).tail] == tail)
    #expect(bench.device.statistics().receiveErrors == 1)
  }

  @Test func `descriptors that are all done for ever end the call`() throws {
    let bench = try IxgbeTestBench()
    var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
    let ring = LegacyRing(forwarder)
    for i in 0..<64 { ring.put(0x0000_0003_0000_0040, at: i) }
    // One descriptor stays free.
    #expect(forwarder.forward(max: 1000) { _ in .send } == 63)
    for i in 0..<64 { ring.put(0x0000_0003_0000_0040, at: i) }
    #expect(forwarder.forward(max: 1000) { _ in .send } == 0)
  }

  @Test func `its queues can be taken again, as queues that pass packets`() throws {
    let bench = try IxgbeTestBench()
    do {
      var forwarder = try bench.device.takeInPlaceForwarder(to: bench.device)
      bench.wire.incoming = [frame(1)]
      run(bench, &forwarder)
    }
    var receiver = try bench.device.takeReceiveQueue(0, mempool: bench.pool)
    var transmitter = try bench.device.takeTransmitQueue(0)
    // Enough to have descriptors reported.
    for number in 0..<200 {
      bench.wire.incoming = [frame(number)]
      bench.settle()
      receiver.forward(to: &transmitter, max: 32) { _ in .send }
    }
    bench.settle()
    #expect(bench.wire.outgoing == [frame(1)] + (0..<200).map { frame($0) })
  }

  @Test func `a receive ring that does not stop leaves the transmit ring to the next`() throws {
    let bench = try IxgbeTestBench()
    let card = StubbornCard(bench.model)
    let device = try IxgbeDevice(card, domain: bench.domain)
    do {
      let forwarder = try device.takeInPlaceForwarder(to: device)
      card.isStubborn = true
      _ = consume forwarder
    }
    // Enabled is bit 25 of TXDCTL.
    #expect(bench.model.read(bar: 0, 0x6028, width: 4) >> 25 & 1 == 0)
    #expect(bench.model.read(bar: 0, 0x6038, width: 4) == 0, "its head is still written")
    #expect(throws: DeviceError.self, "a ring that is on was started") {
      _ = try device.takeReceiveQueue(0, mempool: bench.pool)
    }
    card.isStubborn = false
    let again = try device.takeInPlaceForwarder(to: device)
    #expect(again.pending() == 0)
  }

  @Test func `frames pass from one card to another`() throws {
    let domain = DMADomain()
    let left = try IxgbeTestBench(domain: domain)
    let right = try IxgbeTestBench(domain: domain) { $0.transmitQueues = 3 }
    var forwarder = try left.device.takeInPlaceForwarder(to: right.device, transmitQueue: 2)
    let frames = (0..<500).map { frame($0) }
    left.wire.incoming = frames
    for _ in 0..<200 {
      left.settle()
      forwarder.forward(max: 32) { _ in .send }
      right.settle()
    }
    #expect(right.wire.outgoing == frames)
    #expect(left.wire.outgoing.isEmpty)
  }
}

/// Writes descriptors as a device would that breaks its protocol.
private struct LegacyRing {
  let descriptors: UnsafeMutablePointer<Descriptor>

  init(_ forwarder: borrowing IxgbeInPlaceForwarder) {
    descriptors = unsafe forwarder.ring.descriptors
  }

  func put(_ word: UInt64, at i: Int) { unsafe descriptors[i].high = word }
}

/// A card whose receive ring 0 says that it is on as long as it likes.
private final class StubbornCard: PCIDevice, RegisterAccess {
  var isStubborn = false
  private let model: NIC82599
  private let inner: InProcessDevice

  init(_ model: NIC82599) {
    self.model = model
    inner = InProcessDevice(model)
  }

  var name: String { inner.name }
  func attach(to domain: DMADomain) throws(DeviceError) { try inner.attach(to: domain) }
  func bar(_ index: Int) throws(DeviceError) -> BAR {
    ForwardedBAR(self, size: model.barSizes[index])
  }
  func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    try inner.readConfig(offset, width: width)
  }
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    try inner.writeConfig(value, to: offset, width: width)
  }

  func read(_ offset: Int, width: Int) -> UInt64 {
    let value = model.read(bar: 0, offset, width: width)
    // RXDCTL, and its bit that says enabled.
    return offset == 0x1028 && isStubborn ? value | 1 << 25 : value
  }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    model.write(value, bar: 0, to: offset, width: width)
  }
}
