import Emulation
import Ixy

/// What a generator sends.
enum GeneratedTraffic {
  /// Numbered frames of some flows.
  case numbered(NumberedFrame, SizePattern, flows: Int)
  /// One and the same frame.
  case template([UInt8])

  /// The size of a frame.
  func size(of frame: Int) -> Int {
    switch self {
    case .numbered(let numbered, let pattern, _):
      max(numbered.minimumSize, pattern.size(of: frame))
    case .template(let bytes): bytes.count
    }
  }

  /// Frames a second at a rate.
  func framesPerSecond(_ rate: FrameRate) -> Double {
    switch (rate, self) {
    case (.bits(let bits), .numbered(_, let pattern, _)): bits / (8 * (pattern.mean + 24))
    case (_, .template(let bytes)): rate.framesPerSecond(size: max(60, bytes.count))
    case (.frames(let frames), _): frames
    }
  }
}

/// Makes frames in packets of a pool that has no other use.
struct FrameSource: ~Copyable {
  private let traffic: GeneratedTraffic
  private let pool: Mempool
  /// The number of the next frame, of whatever flow.
  private var next = 0

  /// Writes what all frames share into every buffer of the pool; it stays there.
  init(_ traffic: GeneratedTraffic, pool: Mempool) {
    let shared =
      switch traffic {
      case .numbered(let frame, _, _): frame.bytes
      case .template(let bytes): bytes
      }
    var all = PacketBatch(capacity: pool.capacity)
    while var packet = pool.packet(length: shared.count) {
      var bytes = packet.bytes
      unsafe bytes.withUnsafeMutableBytes { unsafe $0.copyBytes(from: shared) }
      all.append(packet)
    }
    self.traffic = traffic
    self.pool = pool
  }

  /// Adds frames to a batch until it has `count`, or the pool is empty.
  mutating func fill(_ batch: inout PacketBatch, upTo count: Int) {
    let time = monotonicTime()
    while batch.count < count, var packet = pool.packet(length: traffic.size(of: next)) {
      if case .numbered(let frame, _, let flows) = traffic {
        let size = packet.count
        var bytes = packet.bytes
        unsafe bytes.withUnsafeMutableBytes { bytes in
          guard let base = bytes.baseAddress else { return }
          unsafe frame.number(
            base, size: size, flow: next % flows, sequence: UInt64(next / flows), time: time)
        }
      }
      next += 1
      batch.append(packet)
    }
  }

  /// The last `count` frames were not sent.
  mutating func takeBack(_ count: Int) { next -= count }
}

/// How many frames are due at a rate.
struct Pace {
  private let framesPerSecond: Double
  private let start: ContinuousClock.Instant
  private var done = 0

  init(framesPerSecond: Double, start: ContinuousClock.Instant = .now) {
    self.framesPerSecond = framesPerSecond
    self.start = start
  }

  /// The frames that should have been sent by now and were not.
  func due(at now: ContinuousClock.Instant = .now) -> Int {
    let seconds = (now - start) / .seconds(1)
    return max(0, Int(seconds * framesPerSecond) - done)
  }

  mutating func sent(_ count: Int) { done += count }
}
