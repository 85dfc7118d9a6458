import Glibc
import Ixy
import Synchronization

/// Registers that read as they were written, and as an 82599 that is ready.
private final class Registers: RegisterAccess {
  private let values = Mutex<[Int: UInt64]>([0x10010: 0x200, 0x2F00: 8, 0x8D04: 1])

  func read(_ offset: Int, width: Int) -> UInt64 {
    offset == 0 ? 0 : values.withLock { $0[offset] ?? 0 }
  }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    if offset == 0x8 || offset == 0x10010 { return }
    values.withLock { $0[offset] = offset == 0x2F00 ? value | 8 : value }
  }
}

/// Where the driver's memory is.
private final class Memory: DMAMapper {
  private(set) var toPointer = 0
  var usableIOVAs: [ClosedRange<UInt64>] { [0...UInt64.max] }
  func map(file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int) {
    toPointer = Int(bitPattern: base) - Int(iova)
  }
  func unmap(iova: UInt64, size: Int) {}
}

/// A card whose queues' registers are memory: what moves frames is a step of `StandInQueue`.
///
/// Threads may ask for their queues: nothing changes once the driver has its memory.
final class StandInCard: PCIDevice, @unchecked Sendable {
  let name = "stand-in"
  private let memory = Memory()
  private let size = 128 << 10
  private let base: UnsafeMutableRawPointer

  init() {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS
    guard let base = mmap(nil, size, PROT_READ | PROT_WRITE, flags, -1, 0), base != MAP_FAILED
    else { fatalError("no memory") }
    self.base = base
  }

  func bar(_ index: Int) -> BAR {
    ForwardedBAR(
      Registers(), size: size, base: base, mapped: [0x1000..<0x2000, 0x6000..<0x8000])
  }
  func readConfig(_ offset: Int, width: Int) -> UInt32 { offset == 0 ? 0x10FB_8086 : 0 }
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {}
  func attach(to domain: DMADomain) throws(DeviceError) { try domain.attach(memory) }

  /// The card's side of a queue pair, when the driver has set it up.
  func queue(_ id: Int) -> StandInQueue {
    func ring(_ bank: Int) -> UnsafeMutablePointer<UInt64> {
      let iova = Int((base + bank).load(as: UInt32.self))
      guard let ring = UnsafeMutablePointer<UInt64>(bitPattern: memory.toPointer + iova) else {
        fatalError("a ring at 0")
      }
      return ring
    }
    let (rx, tx) = (0x1000 + 0x40 * id, 0x6000 + 0x40 * id)
    return StandInQueue(
      rx: ring(rx), tx: ring(tx),
      tail: (base + tx + 0x18).assumingMemoryBound(to: UInt32.self))
  }
}

/// One queue pair of the stand-in: in the thread of the driver, it marks descriptors done, and nothing else.
struct StandInQueue: @unchecked Sendable {
  private let rx: UnsafeMutablePointer<UInt64>
  private let tx: UnsafeMutablePointer<UInt64>
  private let tail: UnsafeMutablePointer<UInt32>
  private var rxHead = 0
  private var txHead = 0
  private let mask = 511
  /// How many frames were sent.
  private(set) var sent = 0

  init(
    rx: UnsafeMutablePointer<UInt64>, tx: UnsafeMutablePointer<UInt64>,
    tail: UnsafeMutablePointer<UInt32>
  ) {
    (self.rx, self.tx, self.tail) = (rx, tx, tail)
  }

  /// `frames` of 60 bytes arrive; all that the driver has queued is sent.
  @inline(never) mutating func step(_ frames: Int) {
    for _ in 0..<frames {
      rx[2 * rxHead] = 0
      rx[2 * rxHead + 1] = 60 << 32 | 0b11
      rxHead = (rxHead &+ 1) & mask
    }
    let end = Int(tail.pointee)
    while txHead != end {
      // DD where RS is set.
      tx[2 * txHead + 1] |= (tx[2 * txHead + 1] >> 27 & 1) << 32
      txHead = (txHead &+ 1) & mask
      sent &+= 1
    }
  }
}
