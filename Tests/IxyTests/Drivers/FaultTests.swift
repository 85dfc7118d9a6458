import Emulation
import Testing

@testable import Ixy

/// A card that is told to read or write outside the memory that is mapped for it.
@Suite struct FaultTests {
  private let bench: IxgbeTestBench
  private let foreign = DMADomain()
  /// Buffers at IOVAs that the card has no mapping for.
  private let pool: Mempool

  init() throws {
    bench = try IxgbeTestBench()
    try foreign.attach(nowhere)
    // Both domains count from below: this much is far above all that the card knows.
    let below = try foreign.allocate(64 << 20)
    pool = try Mempool(domain: foreign, buffers: 256)
    _ = consume below
  }

  /// Whoever maps the other domain: nobody's card.
  private let nowhere = Nowhere()
  private final class Nowhere: DMAMapper {
    let usableIOVAs: [ClosedRange<UInt64>] = [0 ... .max]
    func map(
      file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
    ) throws(DeviceError) {}
    func unmap(iova: UInt64, size: Int) {}
  }

  @Test func `a frame outside the mapped memory is not sent, and told`() throws {
    #expect(try bench.device.pci.takeFaults().isEmpty)
    var queue = try bench.device.takeTransmitQueue(0)
    guard let packet = pool.packet(length: 60) else { fatalError("the pool is new") }
    if let back = queue.transmit(packet) {
      _ = consume back
      Issue.record("the ring was full")
    }
    bench.settle()
    #expect(bench.model.dma.violations > 0)
    #expect(bench.wire.outgoing.isEmpty)
    let faults = try bench.device.pci.takeFaults()
    #expect(faults == .masterAbort)
    #expect("\(faults)".contains("a read of memory was refused"))
    // Taken once.
    #expect(try bench.device.pci.takeFaults().isEmpty)
  }

  @Test func `a frame for a buffer outside the mapped memory is stopped`() throws {
    let queue = try bench.device.takeReceiveQueue(0, mempool: pool)
    bench.settle()
    bench.wire.incoming.append(frame(1))
    bench.settle()
    #expect(bench.model.dma.violations > 0)
    // A write gets no answer: the card does not know.
    #expect(try bench.device.pci.takeFaults().isEmpty)
    _ = consume queue
  }

  @Test func `a ring outside the mapped memory is not read, and told`() throws {
    let queue = try bench.device.takeTransmitQueue(0)
    bench.settle()
    let bar = bench.device.bar
    let (high, tail, control) = (0x6004, 0x6018, 0x6028)
    bar[Register<UInt32>(at: control)] = 0
    bench.settle()
    bar[Register<UInt32>(at: high)] = 0x7F
    bar[Register<UInt32>(at: control)] = 1 << 25
    bench.settle()
    bar[Register<UInt32>(at: tail)] = 1
    bench.settle()
    #expect(bench.model.dma.violations > 0)
    #expect(try bench.device.pci.takeFaults() == .masterAbort)
    _ = consume queue
  }

  @Test func `a card that is gone has no faults to tell`() throws {
    #expect(throws: DeviceError.self) { try Gone().takeFaults() }
  }

  /// Reads as all ones.
  private final class Gone: PCIDevice {
    let name = "a card"
    func bar(_ index: Int) throws(DeviceError) -> BAR { throw .gone(device: name) }
    func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
      .max >> UInt32(32 - 8 * width)
    }
    func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {}
    func attach(to domain: DMADomain) throws(DeviceError) {}
  }
}
