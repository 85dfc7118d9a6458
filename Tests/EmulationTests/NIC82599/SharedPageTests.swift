import Glibc
import Ixy
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

  @Test func `who has the file cannot shrink it`() throws {
    let mapped = try Mapped()
    #expect(ftruncate(mapped.pages.file, 0) == -1)
  }
}
