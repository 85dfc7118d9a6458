import CIxy
import Foundation
import Glibc
import Ixy
import Synchronization
import Testing

@testable import Emulation

@Suite struct EmulationThreadTests {
  private typealias Card = PageModel.Register

  private func register(_ offset: Int) -> Register<UInt32> { Register(at: offset) }

  private func steps(_ thread: EmulationThread, _ model: PageModel) -> Int {
    thread.exclusively { model.steps }
  }

  @Test func `a doorbell is a store that the thread sees`() throws {
    let thread = EmulationThread()
    let model = try PageModel()
    let bar = try thread.add(model, wire: SinkWire()).bar(0)
    try thread.start()
    for value in 1...20 as ClosedRange<UInt32> {
      bar[register(Card.doorbell)] = value
      let isSeen = waitUntil {
        thread.exclusively { model.read(bar: 0, Card.taken, width: 4) } == UInt64(value)
      }
      #expect(isSeen)
    }
    try thread.stop()
  }

  @Test func `a register access comes after the doorbells before it`() throws {
    let thread = EmulationThread()
    let bar = try thread.add(PageModel(), wire: SinkWire()).bar(0)
    try thread.start()
    for value in 1...500 as ClosedRange<UInt32> {
      bar[register(Card.doorbell)] = value
      #expect(bar[register(Card.taken)] == value)
    }
    try thread.stop()
  }

  @Test func `a register that a read clears is read once`() throws {
    let thread = EmulationThread()
    let bar = try thread.add(PageModel(), wire: SinkWire()).bar(0)
    try thread.start()
    for _ in 0..<7 { _ = bar[register(0x20)] }
    #expect(bar[register(Card.reads)] == 7)
    #expect(bar[register(Card.reads)] == 0)
    try thread.stop()
  }

  @Test func `a card that is always busy keeps no driver waiting`() throws {
    let thread = EmulationThread()
    let model = try PageModel()
    model.pretends = 1
    let bar = try thread.add(model, wire: SinkWire()).bar(0)
    try thread.start()
    #expect(waitUntil { steps(thread, model) > 10 })
    let start = ContinuousClock.now
    for _ in 0..<5000 { _ = bar[register(Card.reads)] }
    // Ten milliseconds each would be those of a scheduler: the lock was free for no moment.
    #expect(ContinuousClock.now - start < .seconds(50))
    try thread.stop()
  }

  @Test func `every card on the thread has its turn`() throws {
    let thread = EmulationThread()
    var settings = GeneratorWire.Settings()
    settings.count = 10_000
    let wires = (0..<2).map { _ in
      GeneratorWire(settings, destination: MACAddress(bits: 2), stream: 1)
    }
    let bars = try wires.map { try thread.add(PageModel(wire: $0), wire: $0).bar(0) }
    try thread.start()
    for bar in bars {
      bar[register(Card.receiver)] = 1
      bar[register(Card.doorbell)] = 1_000_000
    }
    let allCame = waitUntil(seconds: 60) {
      thread.exclusively { wires.allSatisfy { $0.counts.received == 10_000 } }
    }
    #expect(allCame)
    try thread.stop()
    #expect(wires.allSatisfy { $0.counts.lost == 0 && $0.counts.reordered == 0 })
  }

  @Test func `a card may come after the start`() throws {
    let thread = EmulationThread()
    try thread.start()
    let model = try PageModel()
    let device = thread.add(model, wire: SinkWire())
    #expect(waitUntil { steps(thread, model) > 10 })
    try thread.stop()
    #expect(device.name == "page")
  }

  @Test func `memory that is taken away does not end the thread`() throws {
    let thread = EmulationThread()
    let model = try PageModel()
    _ = thread.add(model, wire: SinkWire())
    try thread.start()
    #expect(waitUntil { steps(thread, model) > 0 })
    try thread.stop()
    #expect(model.blocks(SIGTERM), "a signal of the process")
    #expect(!model.blocks(SIGBUS), "blocked, it ends the process whatever its handler")
  }

  /// The part of a processor that the thread used in half a second; where that is much, the least of three.
  ///
  /// Who has a virtual processor is charged for the time that the host takes it away.
  private func load(_ thread: EmulationThread, _ model: PageModel) -> Double {
    // The sleeps grow to their longest first.
    usleep(50_000)
    var least = Double.infinity
    for _ in 0..<3 where least >= 0.25 {
      let (began, before) = (monotonicNanoseconds(), thread.exclusively { model.processorTime })
      usleep(500_000)
      let after = thread.exclusively { model.processorTime }
      least = min(least, Double(after - before) / Double(monotonicNanoseconds() - began))
    }
    return least
  }

  @Test func `an idle card leaves the processor alone`() throws {
    let thread = EmulationThread()
    let model = try PageModel()
    let device = thread.add(model, wire: SinkWire())
    try thread.start()
    let load = load(thread, model)
    #expect(load < 0.25, "\(load)")
    #expect(steps(thread, model) > 0)
    try thread.stop()
    withExtendedLifetime(device) {}
  }

  @Test func `a frame that nobody takes leaves the processor alone`() throws {
    let directory = try TemporaryDirectory()
    let (a, b) = (directory.file("a"), directory.file("b"))
    let (wire, peer) = try (
      DatagramWire(local: a, remote: b), DatagramWire(local: b, remote: a)
    )
    let thread = EmulationThread()
    let model = try PageModel(wire: wire)
    let device = thread.add(model, wire: wire)
    try thread.start()
    peer.send(bytes: frame(1, size: 60))
    let load = load(thread, model)
    #expect(load < 0.25, "\(load)")
    // And it comes when somebody does.
    let bar = try device.bar(0)
    bar[register(Card.receiver)] = 1
    bar[register(Card.doorbell)] = 10
    peer.receiverChanged(isOn: true)
    #expect(waitUntil { peer.nextFrame() != nil })
    #expect(peer.take() == frame(1, size: 60))
    try thread.stop()
  }

  @Test func `a frame wakes a card that sleeps`() throws {
    let directory = try TemporaryDirectory()
    let (a, b) = (directory.file("a"), directory.file("b"))
    let (wire, peer) = try (
      DatagramWire(local: a, remote: b), DatagramWire(local: b, remote: a)
    )
    peer.receiverChanged(isOn: true)
    let thread = EmulationThread()
    let bar = try thread.add(PageModel(wire: wire), wire: wire).bar(0)
    try thread.start()
    bar[register(Card.receiver)] = 1
    bar[register(Card.doorbell)] = 1000
    for i in 0..<20 {
      usleep(5000)
      peer.send(bytes: frame(i, size: 60))
      #expect(waitUntil { peer.nextFrame() != nil })
      #expect(peer.take() == frame(i, size: 60))
    }
    try thread.stop()
  }

  /// What an eventfd has counted since it was read last.
  private func count(_ file: borrowing FileDescriptor) -> UInt64 {
    var value: UInt64 = 0
    return read(file.number, &value, 8) == 8 ? value : 0
  }

  @Test func `an interrupt arrives as an eventfd`() throws {
    let thread = EmulationThread()
    let device = try thread.add(PageModel(), wire: SinkWire())
    let bar = try device.bar(0)
    try thread.start()
    #expect(try device.interruptCount(.msix) == 4)
    let first = FileDescriptor(owning: eventfd(0, Int32(EFD_NONBLOCK)))
    let second = FileDescriptor(owning: eventfd(0, Int32(EFD_NONBLOCK)))
    try device.setInterrupts(.msix, eventFDs: [first.number, second.number])
    for vector in [1, 1, 3, 9] as [UInt32] { bar[register(Card.signal)] = vector }
    #expect(count(first) == 0)
    #expect(count(second) == 2)
    try device.setInterrupts(.msix, eventFDs: [])
    bar[register(Card.signal)] = 1
    #expect(count(second) == 0)
    try thread.stop()
  }

  @Test func `an eventfd that its owner has closed hits no other file`() throws {
    let thread = EmulationThread()
    let device = try thread.add(PageModel(), wire: SinkWire())
    let bar = try device.bar(0)
    let kept: FileDescriptor
    do {
      let file = FileDescriptor(owning: eventfd(0, Int32(EFD_NONBLOCK)))
      kept = FileDescriptor(owning: dup(file.number))
      try device.setInterrupts(.msix, eventFDs: [file.number])
    }
    // Takes the number that became free.
    let other = FileDescriptor(owning: eventfd(0, Int32(EFD_NONBLOCK)))
    bar[register(Card.signal)] = 0
    #expect(count(kept) == 1)
    #expect(count(other) == 0)
  }

  @Test func `stop closes every wire and tells what one could not write`() throws {
    let directory = try TemporaryDirectory()
    let full = try PcapWire(input: nil, output: "/dev/full")
    let good = try PcapWire(input: nil, output: directory.file("out.pcap"))
    let thread = EmulationThread()
    let devices = try [full, good].map { try thread.add(PageModel(wire: $0), wire: $0) }
    try thread.start()
    thread.exclusively {
      full.send(bytes: frame(1, size: 60))
      good.send(bytes: frame(2, size: 60))
    }
    #expect(message { try thread.stop() }.contains("No space left on device"))
    #expect(try bytes(of: directory.file("out.pcap")).count == 24 + 16 + 60)
    try thread.stop()
    withExtendedLifetime(devices) {}
  }

  @Test func `what several wires could not write is told together`() throws {
    let wires = try (0..<2).map { _ in try PcapWire(input: nil, output: "/dev/full") }
    let text = message { try wires.map { $0 as any Wire }.closeAll() }
    #expect(text.hasPrefix("Close the wires: "))
    #expect(text.components(separatedBy: "No space left on device").count == 3)
  }

  @Test func `a card whose driver has gone is reset and sees no memory`() throws {
    let thread = EmulationThread()
    let model = try PageModel()
    try thread.start()
    let domain = DMADomain()
    do {
      let device = thread.add(model, wire: SinkWire())
      try device.attach(to: domain)
      let memory = try domain.allocate(4096)
      #expect(thread.exclusively { model.dma.count } == 1)
      #expect(memory.size == 4096)
    }
    #expect(thread.exclusively { model.dma.count } == 0)
    #expect(thread.exclusively { model.resets } == 1)
    try thread.stop()
  }

  @Test func `a thread that is dropped ends`() throws {
    let model = try PageModel()
    do {
      let thread = EmulationThread()
      _ = thread.add(model, wire: SinkWire())
      try thread.start()
      #expect(waitUntil { steps(thread, model) > 10 })
    }
    let last = model.steps
    usleep(20_000)
    #expect(model.steps == last)
  }

  @Test func `it can be stopped twice, and started again`() throws {
    let thread = EmulationThread()
    let model = try PageModel()
    let device = thread.add(model, wire: SinkWire())
    for _ in 0..<3 {
      try thread.start()
      try thread.start()
      let before = steps(thread, model)
      #expect(waitUntil { steps(thread, model) > before })
      thread.join()
      thread.join()
    }
    // Registers answer after the end, too.
    #expect(try device.bar(0)[register(Card.reads)] == 0)
  }
}
