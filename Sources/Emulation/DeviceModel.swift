import Ixy

/// An emulated PCI device, seen from its host: what a driver or a virtual machine can do to it.
///
/// Not thread-safe: its host calls it from one thread at a time. Nothing that comes in through these calls,
/// through `dma` or through the shared pages is trusted.
public protocol DeviceModel: AnyObject {
  /// How messages name it: "emu:82599", ...
  var name: String { get }
  /// The sizes in bytes of BAR 0 to 5; 0 where there is none. All are memory unless config space says I/O.
  var barSizes: [Int] { get }
  /// The size of config space: 256 or 4,096 bytes.
  var configSize: Int { get }
  /// The vectors that the device has: INTx (0 or 1), MSI, MSI-X.
  var interruptCounts: (intx: Int, msi: Int, msix: Int) { get }
  /// The memory of the driver, as far as it was mapped.
  var dma: DMATable { get }
  /// Where interrupts go; nil drops them.
  var interrupts: (any InterruptSink)? { get set }
  /// The part of BAR 0 that a driver may map; nil where every access must be a message.
  var sharedPages: SharedPages? { get }
  /// Resets the device and puts its shared pages into a new file: who keeps the old one reaches nothing any more.
  ///
  /// - Returns: False when there was no memory for that: nobody else may be given the device until it is there.
  func renewSharedPages() -> Bool

  /// Reads 1, 2 or 4 bytes of config space.
  func readConfig(_ offset: Int, width: Int) -> UInt32
  /// Writes 1, 2 or 4 bytes of config space.
  func writeConfig(_ value: UInt32, to offset: Int, width: Int)
  /// Reads 1, 2, 4 or 8 bytes of a BAR, with the side effects that a read has.
  func read(bar: Int, _ offset: Int, width: Int) -> UInt64
  /// Writes 1, 2, 4 or 8 bytes of a BAR.
  func write(_ value: UInt64, bar: Int, to offset: Int, width: Int)
  /// Back to power-on: registers and config space. Mappings in `dma` stay.
  func reset()
  /// The host's end of INTx was unmasked: signal again if the cause is still there.
  func unmaskedINTx()

  /// Takes in everything that a driver has written to the shared pages. Hosts call it before each message.
  func takeSharedWrites()
  /// Does some work: takes in the tails, moves frames both ways, signals interrupts.
  ///
  /// - Returns: The number of frames moved; 0 when there was nothing to do.
  func step() -> Int
}

extension DeviceModel {
  /// For a device that shares none.
  public func renewSharedPages() -> Bool {
    reset()
    return true
  }
}

/// Where the interrupts of an emulated device go.
public protocol InterruptSink: AnyObject {
  /// Delivers one interrupt.
  func signal(_ kind: InterruptKind, vector: Int)
}

/// Register pages of BAR 0 that lie in a file, for a driver to map and the device to poll.
@safe public struct SharedPages {
  /// A memfd of the size of BAR 0's registers: a page lies at its own offset.
  public let file: Int32
  /// Where the model has mapped the file.
  public let base: UnsafeMutableRawPointer
  /// The pages that drivers may map, as ranges of bytes, page-aligned and in ascending order.
  public let ranges: [Range<Int>]

  /// Pages in `file`, which is mapped at `base`; both stay the model's.
  public init(file: Int32, base: UnsafeMutableRawPointer, ranges: [Range<Int>]) {
    self.file = file
    unsafe self.base = unsafe base
    self.ranges = ranges
  }
}
