import Glibc
import Testing

@testable import Ixy

/// Sleeping until an interrupt comes.
@Suite struct InterruptTests {
  /// A card without registers, whose interrupts a test signals.
  private final class Card: InterruptingDevice {
    let name = "a card"
    let numaNode: Int? = nil
    private let counts: [InterruptKind: Int]
    var connected: [(kind: InterruptKind, files: [Int32])] = []
    var unmasked = 0

    init(_ counts: [InterruptKind: Int]) { self.counts = counts }
    func bar(_ index: Int) throws(DeviceError) -> BAR { throw .gone(device: name) }
    func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 { 0 }
    func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {}
    func attach(to domain: DMADomain) throws(DeviceError) {}
    func interruptCount(_ kind: InterruptKind) throws(DeviceError) -> Int { counts[kind] ?? 0 }
    func unmaskINTx() throws(DeviceError) { unmasked += 1 }
    func setInterrupts(_ kind: InterruptKind, eventFDs: [Int32]) throws(DeviceError) {
      connected.append((kind, eventFDs))
    }
    func signal(_ vector: Int) {
      var one: UInt64 = 1
      #expect(write(connected[0].files[vector], &one, 8) == 8)
    }
  }

  @Test func `one call connects a vector for each queue and one for the link`() throws {
    let card = Card([.msix: 64, .msi: 1, .intx: 1])
    let interrupts = try DeviceInterrupts(of: card, queues: 3)
    #expect(card.connected.map(\.kind) == [.msix])
    #expect(card.connected[0].files == (interrupts.receive + [interrupts.link]).map(\.eventFD))
    #expect(Set(card.connected[0].files).count == 4)
  }

  @Test(
    arguments: [([.msix: 1, .msi: 1, .intx: 1], .msi), ([.intx: 1], .intx)]
      as [([InterruptKind: Int], InterruptKind)])
  func `with too few vectors one queue shares its interrupt with the link`(
    counts: [InterruptKind: Int], kind: InterruptKind
  ) throws {
    let card = Card(counts)
    let interrupts = try DeviceInterrupts(of: card, queues: 1)
    #expect(interrupts.kind == kind && interrupts.isShared)
    #expect(card.connected.map(\.files.count) == [1])
  }

  @Test func `several queues want a vector each`() throws {
    let error = #expect(throws: DeviceError.self) {
      try DeviceInterrupts(of: Card([.msix: 2, .msi: 1, .intx: 1]), queues: 2)
    }
    #expect("\(try #require(error))".contains("want 3 MSI-X vectors, it has 2"))
  }

  @Test func `an INTx line is unmasked after the card was told`() throws {
    let card = Card([.intx: 1])
    let interrupts = try DeviceInterrupts(of: card, queues: 1)
    var told: [Int] = []
    interrupts.onEnable(of: card) { _ in
      told.append(card.unmasked)
    } link: {
      told.append(card.unmasked)
    }
    interrupts.link.enable()
    #expect(told == [0, 0])
    #expect(card.unmasked == 1)
  }

  @Test func `a waiter sleeps until one of its interrupts comes`() throws {
    let card = Card([.msix: 3])
    let interrupts = try DeviceInterrupts(of: card, queues: 2)
    var waiter = try QueueWaiter(mode: .on)
    for interrupt in interrupts.receive + [interrupts.link] { try waiter.add(interrupt) }
    _ = interrupts.receive.map { $0.takeSignal() }
    try waiter.wait(moved: 0)
    card.signal(1)
    let start = ContinuousClock.now
    try waiter.wait(moved: 0, timeout: .seconds(60))
    #expect(ContinuousClock.now - start < .seconds(60))
    #expect(waiter.sleeps == 1)
    #expect(interrupts.receive.map { $0.takeSignal() } == [false, true])
  }

  @Test func `a frame that comes before the interrupt is enabled is not slept over`() throws {
    let card = Card([.msix: 2])
    let interrupts = try DeviceInterrupts(of: card, queues: 1)
    var waiter = try QueueWaiter(mode: .on)
    try waiter.add(interrupts.receive[0])
    var ring = 0
    // It comes while the interrupt is off, and so without a signal.
    interrupts.receive[0].onEnable = { ring = 1 }
    try waiter.wait(moved: 0)
    try waiter.wait(moved: ring, timeout: .seconds(10))
    #expect(waiter.sleeps == 0)
  }

  @Test func `a timeout ends the sleep`() throws {
    var waiter = try QueueWaiter(mode: .on)
    try waiter.wait(moved: 0)
    let start = ContinuousClock.now
    try waiter.wait(moved: 0, timeout: .milliseconds(20))
    #expect(ContinuousClock.now - start >= .milliseconds(20))
    #expect(waiter.sleeps == 1)
  }

  @Test func `any readable file ends the sleep`() throws {
    var ends: [Int32] = [0, 0]
    #expect(pipe(&ends) == 0)
    let reader = FileDescriptor(owning: ends[0])
    let writer = FileDescriptor(owning: ends[1])
    var waiter = try QueueWaiter(mode: .on)
    try waiter.add(file: reader.number)
    #expect(write(writer.number, "x", 1) == 1)
    try waiter.wait(moved: 0)
    let start = ContinuousClock.now
    try waiter.wait(moved: 0, timeout: .seconds(60))
    #expect(ContinuousClock.now - start < .seconds(60))
  }

  @Test func `a queue without interrupts is always polled`() throws {
    var waiter = try QueueWaiter(mode: .on)
    try waiter.add(nil)
    for _ in 0..<100 { try waiter.wait(moved: 0, timeout: .seconds(10)) }
    #expect(waiter.sleeps == 0)
  }

  @Test func `what happened before the first enabling counts as signalled`() throws {
    let interrupt = try Interrupt()
    #expect(interrupt.takeSignal())
    #expect(!interrupt.takeSignal())
  }
}
