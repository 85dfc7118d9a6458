import Glibc
import Ixy

/// An emulated card that runs on an `EmulationThread`, as a driver on another thread sees it.
public final class EmulatedDevice: PCIDevice, InterruptingDevice {
  private let inner: InProcessDevice
  private let thread: EmulationThread
  private let memory: LockedMapper

  init(_ model: any DeviceModel, on thread: EmulationThread) {
    inner = InProcessDevice(model)
    memory = LockedMapper(model.dma, thread)
    self.thread = thread
  }

  /// A card whose driver has gone is quiet before its memory goes.
  deinit {
    thread.exclusively {
      inner.model.interrupts = nil
      inner.model.reset()
    }
  }

  /// The model's name.
  public var name: String { inner.name }

  /// The registers: shared pages are mapped, everything else is a call.
  public func bar(_ index: Int) throws(DeviceError) -> BAR {
    let size = try inner.bar(index).size
    let access = LockedAccess(inner.model, bar: index, thread)
    guard index == 0, let pages = inner.model.sharedPages else {
      return ForwardedBAR(access, size: size)
    }
    // As much address space as the BAR is large, and in it the pages at their places.
    let space = unsafe mmap(nil, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let space = unsafe space, unsafe space != MAP_FAILED else {
      throw .system("Map the registers of \(name)", errno: errno, advice: "")
    }
    for range in pages.ranges {
      let (place, flags) = unsafe (space + range.lowerBound, MAP_SHARED | MAP_FIXED)
      let protection = PROT_READ | PROT_WRITE
      if unsafe mmap(place, range.count, protection, flags, pages.file, range.lowerBound)
        == MAP_FAILED
      {
        unsafe munmap(space, size)
        throw .system("Map the queue registers of \(name)", errno: errno, advice: "")
      }
    }
    return unsafe ForwardedBAR(access, size: size, base: space, mapped: pages.ranges)
  }

  /// Reads the model's config space.
  public func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    thread.exclusively { inner.model.readConfig(offset, width: width) }
  }

  /// Writes the model's config space.
  public func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    thread.exclusively {
      inner.model.takeSharedWrites()
      inner.model.writeConfig(value, to: offset, width: width)
    }
  }

  /// Puts the domain's memory into the model's DMA table.
  public func attach(to domain: DMADomain) throws(DeviceError) { try domain.attach(memory) }

  /// The number of vectors that the model has.
  public func interruptCount(_ kind: InterruptKind) throws(DeviceError) -> Int {
    try inner.interruptCount(kind)
  }

  /// Makes the model signal eventfds.
  public func setInterrupts(_ kind: InterruptKind, eventFDs: [Int32]) throws(DeviceError) {
    try thread.exclusively { () throws(DeviceError) in
      try inner.setInterrupts(kind, eventFDs: eventFDs)
    }
  }

  /// Lets INTx signal again.
  public func unmaskINTx() throws(DeviceError) {
    try thread.exclusively { () throws(DeviceError) in try inner.unmaskINTx() }
  }
}

/// The registers of one BAR, under the thread's lock.
private final class LockedAccess: RegisterAccess {
  private let model: any DeviceModel
  private let bar: Int
  private let thread: EmulationThread

  init(_ model: any DeviceModel, bar: Int, _ thread: EmulationThread) {
    self.model = model
    self.bar = bar
    self.thread = thread
  }

  func read(_ offset: Int, width: Int) -> UInt64 {
    thread.exclusively {
      model.takeSharedWrites()
      return model.read(bar: bar, offset, width: width)
    }
  }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    thread.exclusively {
      model.takeSharedWrites()
      model.write(value, bar: bar, to: offset, width: width)
    }
  }
}

/// A model's DMA table, under the thread's lock.
private final class LockedMapper: DMAMapper {
  private let table: DMATable
  private let thread: EmulationThread

  init(_ table: DMATable, _ thread: EmulationThread) {
    self.table = table
    self.thread = thread
  }

  deinit { thread.exclusively { table.unmapAll() } }

  var usableIOVAs: [ClosedRange<UInt64>] { table.usableIOVAs }

  func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) {
    try thread.exclusively { () throws(DeviceError) in
      unsafe try table.map(file: file, offset: offset, base: base, iova: iova, size: size)
    }
  }

  func unmap(iova: UInt64, size: Int) {
    thread.exclusively { table.unmap(iova: iova, size: size) }
  }
}
