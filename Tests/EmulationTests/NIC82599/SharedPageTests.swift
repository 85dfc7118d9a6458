import CIxy
import Glibc
import Ixy
import Synchronization
import Testing

@testable import Emulation

/// A driver that has mapped the shared pages.
private struct Mapped {
  let card: TestCard
  let pages: SharedPages

  init() throws {
    card = try TestCard(shares: true)
    pages = try #require(card.nic.sharedPages)
  }

  subscript(offset: Int) -> UInt32 {
    get { pages.base.load(fromByteOffset: offset, as: UInt32.self) }
    nonmutating set {
      #expect(pages.ranges.contains { $0.contains(offset) })
      pages.base.storeBytes(of: newValue, toByteOffset: offset, as: UInt32.self)
    }
  }
}

@Suite struct SharedPageTests {
  private let enable: UInt32 = 1 << 25

  @Test func `the pages are those of the queues`() throws {
    let ranges = try Mapped().pages.ranges
    #expect(ranges == [0x1000..<0x2000, 0x6000..<0x8000, 0xD000..<0xE000])
  }

  @Test func `sharing can be switched off`() throws {
    #expect(try TestCard(shares: false).nic.sharedPages == nil)
  }

  @Test func `a message shows in the pages`() throws {
    let mapped = try Mapped()
    mapped.card[0x2104] = 0x0200_0402
    #expect(mapped[0x1054] == 0x0200_0402)
  }

  @Test func `what was written to the pages shows in a message`() throws {
    let mapped = try Mapped()
    mapped[0x1054] = 0x0200_0402
    #expect(mapped.card[0x2104] == 0x0200_0402)
    mapped[0x6008] = 0xFFFF_FFFF
    #expect(mapped.card[0x6008] == 0xF_FF80)
    #expect(mapped[0x6008] == 0xF_FF80, "its fixed bits come back")
  }

  @Test(arguments: [0x1028, 0xD028, 0x6028, 0x7FE8])
  func `a queue is switched on through the pages`(offset: Int) throws {
    let mapped = try Mapped()
    mapped[offset] = enable
    mapped.card.nic.takeSharedWrites()
    let shared = mapped.card.nic.shared
    #expect(shared.receiveQueues.count + shared.transmitQueues.count == 1)
    mapped[offset] = 0
    mapped.card.nic.takeSharedWrites()
    let after = mapped.card.nic.shared
    #expect(after.receiveQueues.isEmpty && after.transmitQueues.isEmpty)
  }

  @Test func `steps alone see a queue that was switched on`() throws {
    let mapped = try Mapped()
    mapped[0x1028] = enable
    for _ in 0..<300 { mapped.card.step() }
    #expect(mapped.card.nic.shared.receiveQueues == [0])
  }

  @Test func `a reset clears the pages`() throws {
    let mapped = try Mapped()
    mapped[0x1028] = enable
    mapped[0x1018] = 17
    mapped.card[0] = 1 << 26
    #expect(mapped[0x1028] == 0)
    #expect(mapped[0x1018] == 0)
    mapped.card.nic.takeSharedWrites()
    #expect(mapped.card.nic.shared.receiveQueues.isEmpty)
  }

  @Test func `a doorbell that is rung while the last is taken in is not lost`() throws {
    let mapped = try Mapped()
    let doorbell = mapped.pages.base + 0x1018
    let rings = 200_000
    // A driver on another thread; each of its doorbells must stay until the next.
    let driver = TestThread {
      var lost = 0
      for ring in 1...rings {
        let value = UInt32(ring & 0xFFFF)
        ixy_store32(doorbell, value)
        if ixy_load32(doorbell) != value { lost += 1 }
      }
      return lost
    }
    while !driver.isDone { mapped.card.nic.takeSharedWrites() }
    #expect(driver.join() == 0)
    #expect(mapped[0x1018] == UInt32(rings & 0xFFFF))
  }

  @Test func `a frame that was sent shows in QPTC of the pages`() throws {
    let mapped = try Mapped()
    mapped.card.nic.statistics.addSent(queue: 0, frames: 5, octets: 300)
    #expect(mapped[0x6030] == 5)
    #expect(mapped.card[0x8680] == 5)
    #expect(mapped[0x6030] == 0, "the message has cleared it")
  }

  @Test func `who has the file cannot shrink it`() throws {
    let mapped = try Mapped()
    #expect(ftruncate(mapped.pages.file, 0) == -1)
  }
}

/// A thread that counts something.
private final class TestThread: @unchecked Sendable {
  private let body: () -> Int
  private let done = Atomic(false)
  private var result = 0
  private var thread = pthread_t()

  init(_ body: @escaping () -> Int) {
    self.body = body
    pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        let thread = Unmanaged<TestThread>.fromOpaque(argument).takeRetainedValue()
        thread.result = thread.body()
        thread.done.store(true, ordering: .releasing)
        return nil
      }, Unmanaged.passRetained(self).toOpaque())
  }

  var isDone: Bool { done.load(ordering: .acquiring) }

  func join() -> Int {
    pthread_join(thread, nil)
    return result
  }
}
