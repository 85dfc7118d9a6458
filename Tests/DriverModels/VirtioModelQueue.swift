import Ixy

/// One queue, as the device sees it.
final class ModelQueue {
  private let maximum: Int
  var size: Int
  var descriptors: UInt64 = 0
  var driverArea: UInt64 = 0
  var deviceArea: UInt64 = 0
  var isEnabled = false
  var vector: UInt16 = 0xFFFF
  // Split: how many entries were taken and used. Packed: the next place of each, and the wrap counters.
  var taken: UInt16 = 0
  var used: UInt16 = 0
  var takenWrap = true
  var usedWrap = true

  init(_ size: Int) {
    maximum = size
    self.size = size
  }

  func reset() {
    size = maximum
    (descriptors, driverArea, deviceArea) = (0, 0, 0)
    isEnabled = false
    vector = 0xFFFF
    (taken, used, takenWrap, usedWrap) = (0, 0, true, true)
  }
}

/// What the driver made available as one buffer.
struct ModelChain {
  struct Part {
    var address: UInt64
    var length: Int
    var isWritable: Bool
  }
  var id: Int
  var parts: [Part]

  var room: Int { parts.reduce(0) { $0 + $1.length } }
}

extension VirtioModel {
  /// The next buffer that is available; nil when there is none.
  func take(_ queue: ModelQueue) -> ModelChain? {
    guard queue.isEnabled else { return nil }
    return isPacked ? takePacked(queue) : takeSplit(queue)
  }

  private func takeSplit(_ queue: ModelQueue) -> ModelChain? {
    let end: UInt16 = load(queue.driverArea + 2)
    if end == queue.taken { return nil }
    var place = Int(
      load(queue.driverArea + 4 + 2 * UInt64(Int(queue.taken) % queue.size), as: UInt16.self))
    queue.taken &+= 1
    var chain = ModelChain(id: place, parts: [])
    for _ in 0..<queue.size {
      let (part, flags, next) = describe(queue, place)
      chain.parts.append(part)
      if flags & 1 == 0 { return chain }
      place = Int(next)
    }
    preconditionFailure("a chain without end")
  }

  private func takePacked(_ queue: ModelQueue) -> ModelChain? {
    let (_, flags, _) = describe(queue, Int(queue.taken))
    // Available: bit 7 as the wrap counter, bit 15 the other way.
    guard (flags & 0x80 != 0) == queue.takenWrap, (flags & 0x8000 != 0) != queue.takenWrap else {
      return nil
    }
    var chain = ModelChain(id: 0, parts: [])
    while true {
      let (part, flags, id) = describe(queue, Int(queue.taken))
      chain.parts.append(part)
      chain.id = Int(id)
      queue.taken += 1
      if Int(queue.taken) == queue.size {
        queue.taken = 0
        queue.takenWrap.toggle()
      }
      if flags & 1 == 0 { return chain }
    }
  }

  /// A descriptor: its buffer, its flags, and the next one (split) or its identifier (packed).
  private func describe(_ queue: ModelQueue, _ place: Int) -> (ModelChain.Part, UInt16, UInt16) {
    precondition(place < queue.size, "a descriptor outside the ring")
    let at = queue.descriptors + 16 * UInt64(place)
    let (third, fourth): (UInt16, UInt16) = (load(at + 12), load(at + 14))
    let (flags, other) = isPacked ? (fourth, third) : (third, fourth)
    let part = ModelChain.Part(
      address: load(at), length: Int(load(at + 8, as: UInt32.self)), isWritable: flags & 2 != 0)
    return (part, flags, other)
  }

  /// Says that a buffer was used.
  func use(_ chain: ModelChain, written: Int, in queue: ModelQueue) {
    use(id: UInt32(chain.id), length: UInt32(written), in: queue, places: chain.parts.count)
  }

  /// Says so of any identifier and length.
  func use(id: UInt32, length: UInt32, in queue: ModelQueue, places: Int = 1) {
    if isPacked {
      let at = queue.descriptors + 16 * UInt64(queue.used)
      store(length, to: at + 8)
      store(UInt16(truncatingIfNeeded: id), to: at + 12)
      store(UInt16(queue.usedWrap ? 0x8080 : 0), to: at + 14)
      queue.used += UInt16(places)
      if Int(queue.used) >= queue.size {
        queue.used -= UInt16(queue.size)
        queue.usedWrap.toggle()
      }
    } else {
      let at = queue.deviceArea + 4 + 8 * UInt64(Int(queue.used) % queue.size)
      store(id, to: at)
      store(length, to: at + 4)
      queue.used &+= 1
      store(queue.used, to: queue.deviceArea + 2)
    }
    signalUsed(queue)
  }

  /// Writes bytes over the parts of a buffer, as many as it has room for.
  func fill(_ chain: ModelChain, _ bytes: [UInt8]) {
    var rest = bytes[...]
    for part in chain.parts {
      precondition(part.isWritable)
      store(Array(rest.prefix(part.length)), to: part.address)
      rest = rest.dropFirst(part.length)
    }
    precondition(rest.isEmpty, "more than the buffer holds")
  }

  /// The header that goes before a received frame.
  func header(buffers: Int = 1, flags: UInt8 = 0, segmentation: UInt8 = 0, hash: UInt32 = 0)
    -> [UInt8]
  {
    let all =
      [flags, segmentation] + [UInt8](repeating: 0, count: 8)
      + VirtioModel.bytes(UInt16(buffers)) + VirtioModel.bytes(hash) + [0, 0, 0, 0]
    return Array(all.prefix(headerSize))
  }

  /// Receives a frame into the next buffer; false when there is none.
  @discardableResult
  func receive(_ frame: [UInt8], queue: Int = 0) -> Bool {
    guard let chain = take(queues[queue]) else { return false }
    receive(frame, into: chain, queue: queue)
    return true
  }

  /// Receives a frame into a buffer.
  func receive(_ frame: [UInt8], into chain: ModelChain, queue: Int = 0, hash: UInt32 = 0) {
    fill(chain, header(hash: hash) + frame)
    use(chain, written: headerSize + frame.count, in: queues[queue])
  }

  /// The frame that a transmit buffer holds, after its header, which must be all zero.
  func frame(_ chain: ModelChain) -> [UInt8] {
    let all = chain.parts.flatMap { part in
      precondition(!part.isWritable)
      return bytes(part.address, part.length)
    }
    precondition(all.prefix(headerSize).allSatisfy { $0 == 0 }, "a header that asks for something")
    return Array(all.dropFirst(headerSize))
  }

  /// Sends everything that is there.
  func sendAll(queue: Int = 1) -> [[UInt8]] {
    var frames: [[UInt8]] = []
    while let chain = take(queues[queue]) {
      frames.append(frame(chain))
      use(chain, written: 0, in: queues[queue])
    }
    return frames
  }
}
