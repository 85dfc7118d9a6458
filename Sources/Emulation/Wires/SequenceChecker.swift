import Ixy

/// Finds out which numbered frames are missing, and which came late.
///
/// Each flow has numbers of its own, because a card with several queues keeps the order within a flow only.
/// A frame of another stream starts everything anew: the generator was restarted.
@safe public final class SequenceChecker {
  /// More gaps than this are forgotten, the oldest first: their frames stay lost even if they come.
  private static let maximumGaps = 256

  /// Frames that should have come and did not.
  public private(set) var lost: UInt64 = 0
  /// Frames that came after a later one, or twice.
  public private(set) var reordered: UInt64 = 0
  /// The magic and the stream that the frames of this generator have, as they lie in memory.
  private var key: UInt32 = 0
  /// The next number of each flow.
  private let expected = UnsafeMutablePointer<UInt64>.allocate(capacity: TestFrame.maximumFlows)
  private var gaps: [(flow: Int, numbers: Range<UInt64>)] = []
  private let port = UInt32(TestFrame.port.bigEndian)

  /// A checker that has seen nothing.
  public init() { unsafe expected.initialize(repeating: 0, count: TestFrame.maximumFlows) }

  deinit { unsafe expected.deallocate() }

  /// Looks at one frame, numbered or not; those of the commonest layout take the short way.
  @inline(__always) func check(_ frame: UnsafeRawBufferPointer) {
    guard frame.count >= FrameSize.minimum, let base = frame.baseAddress else { return }
    // SAFETY: the frame has at least 60 bytes. Each field is read once: a driver may still write here.
    let ports = unsafe base.loadUnaligned(fromByteOffset: 34, as: UInt32.self)
    let found = unsafe base.loadUnaligned(fromByteOffset: 42, as: UInt32.self)
    guard found == key, ports >> 16 == port else {
      if let header = unsafe TestFrame(frame) { check(header) }
      return
    }
    let flow = Int(UInt16(truncatingIfNeeded: ports).byteSwapped & 0x7FFF)
    let number = unsafe base.loadUnaligned(fromByteOffset: 46, as: UInt64.self).bigEndian
    note(flow, number)
  }

  /// Looks at what is in a numbered frame.
  @inline(never) public func check(_ header: TestFrame) {
    let key = (UInt32(TestFrame.magic) << 16 | UInt32(header.stream)).bigEndian
    if key != self.key {
      // A stream that we did not follow until now.
      self.key = key
      unsafe expected.update(repeating: 0, count: TestFrame.maximumFlows)
      gaps = []
    }
    note(header.flow, header.sequence)
  }

  @inline(__always) private func note(_ flow: Int, _ number: UInt64) {
    if unsafe expected[flow] == number {
      unsafe expected[flow] = number &+ 1
    } else {
      surprise(flow, number)
    }
  }

  /// A number that is not the one that should come now.
  @inline(never) private func surprise(_ flow: Int, _ number: UInt64) {
    let next = unsafe expected[flow]
    if number > next {
      lost &+= number - next
      if gaps.count == Self.maximumGaps { gaps.removeFirst() }
      gaps.append((flow, next..<number))
      unsafe expected[flow] = number &+ 1
      return
    }
    reordered += 1
    let place = gaps.firstIndex { $0.flow == flow && $0.numbers.contains(number) }
    guard let place else { return }
    lost &-= 1
    let gap = gaps.remove(at: place).numbers
    for rest in [gap.lowerBound..<number, number + 1..<gap.upperBound] where !rest.isEmpty {
      gaps.append((flow, rest))
    }
  }
}
