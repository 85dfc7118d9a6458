import CIxy
import Emulation
import Glibc
import Ixy
import Synchronization
import Testing

@testable import VFIOUser

/// Interrupts from the model to the client's eventfds.
@Suite struct InterruptTests {
  private let model: ToyModel
  private let client: RawClient

  init() throws {
    model = try ToyModel()
    client = try RawClient(VFIOUserServer(model: model, path: socketPath()))
    try client.negotiate()
  }

  /// The errno that a SET_IRQS gets.
  private func set(
    _ index: UInt32, _ flags: UInt32, _ start: UInt32, _ count: UInt32, data: [UInt8] = [],
    files: [Int32] = [], argsz: UInt32 = 20
  ) throws -> Int32? {
    try client.refusal(
      .setIRQs, [UInt8](words: argsz, flags, index, start, count) + data, files: files)
  }

  @Test func `a vector signals the eventfd that is attached to it`() throws {
    let first = makeEventFD()
    let second = makeEventFD()
    #expect(try set(2, 0x24, 3, 2, files: [first.number, second.number]) == nil)
    model.interrupts?.signal(.msix, vector: 3)
    model.interrupts?.signal(.msix, vector: 3)
    model.interrupts?.signal(.msix, vector: 4)
    #expect(first.count() == 2)
    #expect(second.count() == 1)
  }

  @Test func `a vector that is attached again signals the new eventfd`() throws {
    let first = makeEventFD()
    let second = makeEventFD()
    #expect(try set(1, 0x24, 0, 1, files: [first.number]) == nil)
    #expect(try set(1, 0x24, 0, 1, files: [second.number]) == nil)
    model.interrupts?.signal(.msi, vector: 0)
    #expect(first.count() == 0)
    #expect(second.count() == 1)
  }

  @Test(arguments: [0x24, 0x21] as [UInt32])
  func `an interrupt that comes while its vector is detached waits`(flags: UInt32) throws {
    let eventFD = makeEventFD()
    #expect(try set(2, 0x24, 0, 1, files: [eventFD.number]) == nil)
    #expect(try set(2, flags, 0, flags == 0x24 ? 1 : 0) == nil)
    model.interrupts?.signal(.msix, vector: 0)
    #expect(eventFD.count() == 0)
    #expect(try set(2, 0x24, 0, 1, files: [eventFD.number]) == nil)
    #expect(eventFD.count() == 1)
    #expect(try set(2, 0x24, 0, 1, files: [eventFD.number]) == nil)
    #expect(eventFD.count() == 0)
  }

  @Test func `a reset forgets interrupts that wait`() throws {
    let eventFD = makeEventFD()
    model.interrupts?.signal(.msix, vector: 0)
    #expect(try client.refusal(.reset) == nil)
    #expect(try set(2, 0x24, 0, 1, files: [eventFD.number]) == nil)
    #expect(eventFD.count() == 0)
  }

  @Test func `INTx masks itself until it is unmasked`() throws {
    let eventFD = makeEventFD()
    #expect(try set(0, 0x24, 0, 1, files: [eventFD.number]) == nil)
    model.setLevel(true)
    model.setLevel(true)
    #expect(eventFD.count() == 1)
    model.setLevel(false)
    #expect(try set(0, 0x11, 0, 1) == nil)
    #expect(eventFD.count() == 0)
    model.setLevel(true)
    #expect(eventFD.count() == 1)
  }

  @Test func `INTx is silent while the client masks it`() throws {
    let eventFD = makeEventFD()
    #expect(try set(0, 0x24, 0, 1, files: [eventFD.number]) == nil)
    #expect(try set(0, 0x09, 0, 1) == nil)
    model.setLevel(true)
    #expect(eventFD.count() == 0)
    #expect(try set(0, 0x12, 0, 1, data: [0]) == nil)
    #expect(eventFD.count() == 0)
    #expect(try set(0, 0x12, 0, 1, data: [1]) == nil)
    #expect(eventFD.count() == 1)
  }

  @Test func `INTx that is high when it is attached signals`() throws {
    model.setLevel(true)
    let eventFD = makeEventFD()
    #expect(try set(0, 0x24, 0, 1, files: [eventFD.number]) == nil)
    #expect(eventFD.count() == 1)
  }

  @Test func `a client can trigger vectors itself`() throws {
    let first = makeEventFD()
    let second = makeEventFD()
    #expect(try set(2, 0x24, 0, 2, files: [first.number, second.number]) == nil)
    #expect(try set(2, 0x21, 0, 2) == nil)
    #expect(try set(2, 0x22, 0, 2, data: [0, 1]) == nil)
    #expect(first.count() == 1)
    #expect(second.count() == 2)
  }

  @Test func `messages that make no sense are refused`() throws {
    let eventFD = makeEventFD()
    let one = [eventFD.number]
    // Index, start and count outside of what there is.
    #expect(try set(5, 0x21, 0, 1) == EINVAL)
    #expect(try set(.max, 0x21, 0, 1) == EINVAL)
    #expect(try set(2, 0x24, 20, 1, files: one) == EINVAL)
    #expect(try set(2, 0x24, 19, 2, files: one) == EINVAL)
    #expect(try set(2, 0x24, .max, .max, files: one) == EINVAL)
    #expect(try set(2, 0x24, 0, .max) == EINVAL)
    #expect(try set(2, 0x22, 0, .max) == EINVAL)
    #expect(try set(3, 0x24, 0, 2, files: one) == EINVAL)
    // Not one action with one type of data.
    for flags: UInt32 in [0, 0x04, 0x20, 0x07, 0x3C, 0x64, 0x26, .max] {
      #expect(try set(2, flags, 0, 1) == EINVAL)
    }
    #expect(try set(2, 0x21, 0, 1, argsz: 19) == EINVAL)
    #expect(try set(2, 0x22, 0, 4, data: [1, 1, 1]) == EINVAL)
    // No vector, with something else than "all off".
    #expect(try set(2, 0x21, 1, 0) == EINVAL)
    #expect(try set(2, 0x24, 0, 0) == EINVAL)
    #expect(try set(2, 0x09, 0, 0) == EINVAL)
    // Descriptors that are too many, too few, or nothing to signal.
    #expect(try set(2, 0x24, 0, 2, files: one) == EINVAL)
    #expect(try set(2, 0x24, 0, 1, files: one + one) == EINVAL)
    #expect(try set(2, 0x21, 0, 1, files: one) == EINVAL)
    let memory = makeMemory(4096)
    #expect(try set(2, 0x24, 0, 2, files: one + [memory.number]) == EINVAL)
    #expect(try client.refusal(.setIRQs, [UInt8](words: 20, 0x24, 2, 0)) == EINVAL)
    // Only INTx is masked.
    #expect(try set(2, 0x09, 0, 1) == ENOTSUP)
    #expect(try set(0, 0x14, 0, 1, files: one) == ENOTSUP)
    model.interrupts?.signal(.msix, vector: 0)
    #expect(eventFD.count() == 0)
  }

  @Test func `an eventfd that is full does not stop the server`() throws {
    let eventFD = OpenFile(eventfd(0, 0))
    #expect(try set(2, 0x24, 0, 1, files: [eventFD.number]) == nil)
    var value = UInt64.max - 1
    #expect(write(eventFD.number, &value, 8) == 8)
    model.interrupts?.signal(.msix, vector: 0)
    #expect(read(eventFD.number, &value, 8) == 8)
  }

  @Test(.enabled(if: hasAsynchronousReads, "the kernel has no asynchronous reads (io_setup)"))
  func `an eventfd that is filled at the worst moment does not stop the server`() throws {
    let eventFD = OpenFile(eventfd(0, 0))
    #expect(try set(2, 0x24, 0, 1, files: [eventFD.number]) == nil)
    let number = eventFD.number
    let rounds = Atomic<Int>(0)
    let waits = Atomic<Int>(0)
    let isOver = Atomic<Bool>(false)
    // The client fills it again and again, and looks whether the server goes on while it is full.
    let client = TestThread {
      var (value, full) = (UInt64(0), UInt64.max - 1)
      while !isOver.load(ordering: .relaxed) {
        _ = fcntl(number, F_SETFL, O_NONBLOCK)
        _ = read(number, &value, 8)
        _ = write(number, &full, 8)
        _ = fcntl(number, F_SETFL, 0)
        let before = rounds.load(ordering: .relaxed)
        let deadline = ContinuousClock.now + .seconds(60)
        while rounds.load(ordering: .relaxed) < before + 3, !isOver.load(ordering: .relaxed) {
          guard .now >= deadline else { continue }
          waits.add(1, ordering: .relaxed)
          break
        }
      }
      _ = fcntl(number, F_SETFL, O_NONBLOCK)
      _ = read(number, &value, 8)
    }
    for _ in 0..<20_000 where waits.load(ordering: .relaxed) == 0 {
      model.interrupts?.signal(.msix, vector: 0)
      rounds.add(1, ordering: .relaxed)
    }
    isOver.store(true, ordering: .relaxed)
    client.join()
    #expect(waits.load(ordering: .relaxed) == 0)
  }

  @Test func `vectors that no device has are ignored`() throws {
    for vector in [-1, 20, .max] { model.interrupts?.signal(.msix, vector: vector) }
    model.interrupts?.signal(.intx, vector: 1)
  }

  @Test func `our own client gets interrupts of each kind`() throws {
    let model = try ToyModel()
    try withServer(model) { path in
      let device = try VFIOUserDevice(path: path)
      #expect(try device.interruptCount(.intx) == 1)
      #expect(try device.interruptCount(.msi) == 4)
      #expect(try device.interruptCount(.msix) == 20)
      let bar = try device.bar(0)
      // More vectors than descriptors fit into a message.
      let eventFDs = (0..<20).map { _ in OpenFile(eventfd(0, Int32(EFD_NONBLOCK))) }
      try device.setInterrupts(.msix, eventFDs: eventFDs.map { $0.number })
      #expect(try device.readConfig(0x72, width: 2) == 0x8013)
      for vector in [0, 7, 15, 16, 19] {
        bar.write(UInt64(vector), to: ToyModel.Register.go, width: 4)
        #expect(eventFDs[vector].isSignalled())
      }
      try device.setInterrupts(.msix, eventFDs: [])
      #expect(try device.readConfig(0x72, width: 2) == 0x0013)
      bar.write(0, to: ToyModel.Register.go, width: 4)
      #expect(eventFDs.allSatisfy { $0.count() == 0 })
      try device.setInterrupts(.msi, eventFDs: [eventFDs[0].number])
      #expect(try device.readConfig(0x52, width: 2) == 0x0085)
      try device.setInterrupts(.intx, eventFDs: [eventFDs[1].number])
      bar.write(1, to: ToyModel.Register.level, width: 4)
      #expect(eventFDs[1].isSignalled())
      try device.unmaskINTx()
      #expect(eventFDs[1].isSignalled())
    }
  }

  @Test func `more eventfds than vectors are refused`() throws {
    try withServer(ToyModel()) { path in
      let device = try VFIOUserDevice(path: path)
      let eventFD = makeEventFD()
      #expect(throws: DeviceError.self) {
        try device.setInterrupts(
          .msix, eventFDs: [Int32](repeating: eventFD.number, count: 21))
      }
    }
  }
}

/// Whether the kernel has asynchronous reads, without which a client can stop the server: SECURITY.md says so.
private let hasAsynchronousReads: Bool = {
  // Variadic in C, and so unknown here.
  typealias SystemCall = @convention(c) (Int, UInt, UnsafeMutablePointer<UInt>?) -> Int
  guard let address = dlsym(nil, "syscall") else { return false }
  let systemCall = unsafeBitCast(address, to: SystemCall.self)
  var context: UInt = 0
  guard systemCall(Int(SYS_io_setup), 1, &context) == 0 else { return false }
  _ = systemCall(Int(SYS_io_destroy), context, nil)
  return true
}()
