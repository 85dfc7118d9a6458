import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

/// What went wrong in other drivers, and has no better place (Documentation/what-goes-wrong.md).
@Suite struct LessonTests {
  @Test(arguments: RingKind.allCases)
  func `a virtio buffer is announced with the room that it has`(kind: RingKind) throws {
    let card = try VirtioCard(VirtioModel(offering: kind.features), buffers: 64)
    let queue = try card.device.receiveQueue(0, mempool: card.pool)
    var ranges: [Range<UInt64>] = []
    while let chain = card.model.take(card.model.queues[0]) {
      #expect(chain.room <= card.pool.bufferSize + card.model.headerSize)
      ranges += chain.parts.map { $0.address..<$0.address + UInt64($0.length) }
    }
    #expect(ranges.count == 64)
    ranges.sort { $0.lowerBound < $1.lowerBound }
    // What is written into one is not in the next.
    for (one, next) in zip(ranges, ranges.dropFirst()) {
      #expect(one.upperBound <= next.lowerBound)
    }
    _ = consume queue
  }

  @Test func `a lack of huge pages has the command that reserves them`() {
    let message = DeviceError.tooFewHugePages(needed: 100, free: 3).description
    #expect(message.contains("100") && message.contains("3"))
    #expect(message.contains("sudo Scripts/setup-hugepages 100"))
  }
}
