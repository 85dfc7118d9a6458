import CIxy

/// Collects a frame that lies in several buffers, or is changed before it goes out, in memory of its own.
///
/// Each descriptor is read once: what is decided about it and what is done with it cannot differ.
@safe final class TransmitGatherer {
  // SAFETY: what is read of a descriptor goes into `parts`, up to `mostSegmentedParts`, and is
  // checked there; a frame goes into `memory` when its length was found to fit.
  /// The longest frame that the card cuts into segments, in bytes without FCS.
  private static let longestSegmented = 256 << 10
  /// The most descriptors of a frame (descriptor reference, 2.5), and of one to be cut.
  private static let mostParts = 40
  private static let mostSegmentedParts = 1024
  /// A poll that has read so many descriptors begins no more frames that need gathering.
  ///
  /// Each buffer may be on a page of its own that its owner has truncated, which costs us a mapping.
  private static let partsPerPoll = 1024
  /// Room before a frame, for a VLAN tag.
  private static let headroom = 64

  /// What became of the frame whose first descriptor was read.
  enum Outcome {
    /// The end is not in the ring yet.
    case incomplete
    /// A whole frame of no bytes: legal, and not sent.
    case nothing(descriptors: Int)
    /// No frame that could be sent.
    case rejected(descriptors: Int)
    /// It is there, with room before it for a VLAN tag.
    case frame(descriptors: Int, length: Int)
  }

  private struct Part {
    var address: UInt64
    var command: TransmitCommand
  }

  private let dma: DMATable
  private let parts = UnsafeMutablePointer<Part>.allocate(capacity: mostSegmentedParts)
  private let memory = UnsafeMutableRawPointer.allocate(
    byteCount: longestSegmented + headroom, alignment: 64)
  private var partsLeft = 0

  init(dma: DMATable) { self.dma = dma }

  deinit {
    unsafe parts.deallocate()
    unsafe memory.deallocate()
  }

  /// A poll begins.
  func refill() { partsLeft = Self.partsPerPoll }

  /// The commands of the frame's first descriptor, and of its last.
  var first: TransmitCommand { unsafe parts[0].command }
  func last(of descriptors: Int) -> TransmitCommand { unsafe parts[descriptors - 1].command }

  /// The frame's bytes, until the next one is gathered.
  func frame(_ length: Int) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(start: memory + Self.headroom, count: length)
  }

  /// Reads the ring's next descriptor.
  ///
  /// - Returns: Its two words; nil when enough was read in this poll, or the ring's memory is not mapped.
  func readFirst(
    _ queue: UnsafeMutablePointer<TransmitQueue>
  ) -> (address: UInt64, command: TransmitCommand)? {
    guard partsLeft > 0, unsafe read(0, queue) else { return nil }
    return unsafe (parts[0].address, parts[0].command)
  }

  private func read(_ i: Int, _ queue: UnsafeMutablePointer<TransmitQueue>) -> Bool {
    guard let descriptor = unsafe queue.pointee.ring.descriptor(i, in: dma) else { return false }
    let command = unsafe TransmitCommand(bits: ixy_load64(descriptor + 8))
    unsafe parts[i] = Part(address: ixy_load64(descriptor), command: command)
    return true
  }

  /// Collects the frame whose first descriptor was read.
  func gather(_ queue: UnsafeMutablePointer<TransmitQueue>) -> Outcome {
    let owned = unsafe queue.pointee.ring.owned
    if unsafe owned == queue.pointee.incomplete { return .incomplete }
    let mostParts = first.isSegmented ? Self.mostSegmentedParts : Self.mostParts
    let longest = first.isSegmented ? Self.longestSegmented : TransmitEngine.longestFrame
    var length = 0
    for i in 0..<owned {
      partsLeft &-= 1
      if i > 0, unsafe !read(i, queue) { return .incomplete }
      let command = unsafe parts[i].command
      // A context or nonsense within a frame ends it.
      if !command.isData { return .rejected(descriptors: max(i, 1)) }
      length += command.length
      let isLast = command.has(TransmitCommand.endOfPacket)
      if length > longest || i + 1 == mostParts && !isLast {
        unsafe queue.pointee.isDiscarding = !isLast
        return .rejected(descriptors: i + 1)
      }
      if isLast { return copy(descriptors: i + 1, length) }
    }
    unsafe queue.pointee.incomplete = owned
    return .incomplete
  }

  private func copy(descriptors: Int, _ length: Int) -> Outcome {
    if length == 0 { return .nothing(descriptors: descriptors) }
    // Without a whole Ethernet header it is no frame.
    if length < 14 { return .rejected(descriptors: descriptors) }
    var target = unsafe memory + Self.headroom
    for i in 0..<descriptors {
      let size = unsafe parts[i].command.length
      guard unsafe dma.read(parts[i].address, into: target, count: size) else {
        return .rejected(descriptors: descriptors)
      }
      unsafe target += size
    }
    return .frame(descriptors: descriptors, length: length)
  }

  /// Gives the descriptors back that were read.
  func retire(_ queue: UnsafeMutablePointer<TransmitQueue>, _ count: Int) {
    for i in 0..<count {
      guard let descriptor = unsafe queue.pointee.ring.descriptor(0, in: dma) else { return }
      unsafe queue.pointee.complete(descriptor, parts[i].command)
      unsafe queue.pointee.ring.advance(by: 1)
    }
  }
}
