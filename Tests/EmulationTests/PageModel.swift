import CIxy
import Glibc
import Ixy
import Testing

@testable import Emulation

/// A small card with one shared page: it sends back what it receives, as many frames as its doorbell allows.
final class PageModel: DeviceModel {
  /// Its registers in BAR 0.
  enum Register {
    /// How often it was read; cleared by a read.
    static let reads = 0x00
    /// A write switches the receiver on or off.
    static let receiver = 0x04
    /// A write signals this MSI-X vector.
    static let signal = 0x08
    /// What the doorbell said when it was looked at last.
    static let taken = 0x0C
    /// The frames that may still be sent; in the shared page.
    static let doorbell = 0x1000
  }

  let name = "page"
  let barSizes = [0x4000, 0, 0, 0, 0, 0]
  let configSize = 256
  let interruptCounts = (intx: 0, msi: 0, msix: 4)
  let dma = DMATable()
  var interrupts: (any InterruptSink)?
  let sharedPages: SharedPages?
  private let wire: any Wire
  private let file: FileDescriptor
  private let pages: UnsafeMutableRawPointer

  private var config = [UInt8](repeating: 0, count: 256)
  private var reads: UInt32 = 0
  private var taken: UInt32 = 0
  private var moved: UInt32 = 0
  private(set) var resets = 0
  private(set) var steps = 0
  /// What the thread of `step` has used of its processor, in nanoseconds.
  private(set) var processorTime: UInt64 = 0
  /// The signals that the thread of `step` blocks.
  private var blocked = sigset_t()
  /// What a step says that it did, when it did nothing.
  var pretends = 0

  init(wire: any Wire = SinkWire()) throws {
    self.wire = wire
    file = FileDescriptor(owning: ixy_memfd("page", IXY_MEMFD_CLOEXEC))
    try #require(ftruncate(file.number, 0x2000) == 0)
    let found = mmap(nil, 0x2000, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0)
    pages = try #require(found)
    sharedPages = SharedPages(file: file.number, base: pages, ranges: [0x1000..<0x2000])
  }

  deinit { munmap(pages, 0x2000) }

  func readConfig(_ offset: Int, width: Int) -> UInt32 { UInt32(config[offset]) }
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {
    config[offset] = UInt8(truncatingIfNeeded: value)
  }

  func read(bar: Int, _ offset: Int, width: Int) -> UInt64 {
    switch offset {
    case Register.reads:
      defer { reads = 0 }
      return UInt64(reads)
    case Register.taken: return UInt64(taken)
    default:
      reads += 1
      return 0
    }
  }

  func write(_ value: UInt64, bar: Int, to offset: Int, width: Int) {
    if offset == Register.receiver { wire.receiverChanged(isOn: value != 0) }
    if offset == Register.signal { interrupts?.signal(.msix, vector: Int(value)) }
  }

  func reset() {
    resets += 1
    wire.receiverChanged(isOn: false)
  }

  func unmaskedINTx() {}

  func blocks(_ signal: Int32) -> Bool { sigismember(&blocked, signal) == 1 }

  func takeSharedWrites() { taken = ixy_load32(pages + Register.doorbell) }

  func step() -> Int {
    takeSharedWrites()
    steps += 1
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    pthread_sigmask(SIG_BLOCK, nil, &blocked)
    processorTime = UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    let before = moved
    while moved &- before < 32, moved < taken, wire.canSend, let frame = wire.nextFrame() {
      wire.send(frame)
      wire.takeFrame()
      moved += 1
    }
    return moved == before ? pretends : Int(moved - before)
  }
}
