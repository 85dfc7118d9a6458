import Testing

@testable import Emulation

@Suite struct FrameRingTests {
  private func push(_ ring: FrameRing, _ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBytes { ring.push($0) }
  }

  @Test(arguments: [14, 59, 60, 61, 1514, 9000, 16384])
  func `frames come out as they went in over many turns of the ring`(size: Int) {
    let ring = FrameRing()
    var (pushed, popped) = (0, 0)
    // The fill level goes up and down, so that the end of the ring is met in all states.
    for round in 0..<400 {
      for _ in 0..<(round % 7 * 5) where ring.hasRoom {
        #expect(push(ring, frame(pushed, size: size)))
        pushed += 1
      }
      for _ in 0..<((round + 3) % 7 * 5) {
        guard let found = ring.first else { break }
        #expect(Array(found) == padded(frame(popped, size: size)))
        ring.pop()
        popped += 1
      }
    }
    #expect(ring.removeAll() == pushed - popped)
    #expect(ring.first == nil)
    #expect(pushed > 1000)
  }

  @Test func `frames of mixed sizes keep their order`() {
    let ring = FrameRing()
    let sizes = [60, 16384, 61, 1514, 14, 8000, 127, 128]
    var (pushed, popped) = (0, 0)
    for _ in 0..<5000 {
      if ring.hasRoom {
        #expect(push(ring, frame(pushed, size: sizes[pushed * 7 % 8])))
        pushed += 1
      } else {
        #expect(
          Array(ring.first ?? .init(start: nil, count: 0))
            == padded(frame(popped, size: sizes[popped * 7 % 8])))
        ring.pop()
        popped += 1
      }
    }
    #expect(popped > 2000)
  }

  @Test(arguments: [0, 13, 16385]) func `what is no frame is refused`(size: Int) {
    let ring = FrameRing()
    #expect(!push(ring, [UInt8](repeating: 1, count: size)))
    #expect(ring.first == nil)
  }

  @Test func `a full ring refuses and keeps what it has`() {
    let ring = FrameRing()
    var count = 0
    while ring.hasRoom {
      #expect(push(ring, frame(count, size: 1514)))
      count += 1
    }
    #expect(count > 100)
    #expect(!push(ring, frame(count, size: 60)))
    #expect(ring.removeAll() == count)
    #expect(ring.hasRoom)
  }
}
