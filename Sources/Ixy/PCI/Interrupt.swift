import CIxy
import Glibc
import Synchronization

/// The kinds of interrupt that a PCI device has, with vfio's numbers.
public enum InterruptKind: Int, Sendable {
  /// A line, shared and level triggered.
  case intx = 0
  /// Message signalled, few vectors.
  case msi = 1
  /// Message signalled, many vectors.
  case msix = 2
}

/// A PCI device whose interrupts arrive as eventfds.
public protocol InterruptingDevice: PCIDevice {
  /// The number of vectors of this kind that the device has.
  func interruptCount(_ kind: InterruptKind) throws(DeviceError) -> Int
  /// Connects vectors 0, 1, ... to eventfds, all in one call; what was connected before is not any more.
  ///
  /// The descriptors stay the caller's. An empty array switches interrupts of this kind off.
  func setInterrupts(_ kind: InterruptKind, eventFDs: [Int32]) throws(DeviceError)
  /// Lets INTx signal again after one interrupt; its line masks itself.
  func unmaskINTx() throws(DeviceError)
}

/// One interrupt of a card, as an eventfd.
///
/// It comes once and then not again before `enable()`. Whoever waits looks at the ring once more after
/// `enable()` and before sleeping: what came earlier may not be signalled. `QueueWaiter` does all of that.
///
/// It may go to the thread of its queue.
public final class Interrupt: @unchecked Sendable {
  private let file: FileDescriptor
  /// What the driver does to let the card signal again, set before anybody has it; any thread may call it.
  var onEnable: () -> Void = {}
  // True at first: what happened before the first `enable()` was not signalled.
  private let isSignalled = Atomic(true)

  /// An interrupt that nothing is connected to yet.
  init() throws(DeviceError) {
    file = FileDescriptor(owning: eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)))
    if file.number < 0 {
      throw .lastError("Make an eventfd", advice: "Is there a limit (ulimit -n)?")
    }
  }

  /// What a device or the kernel signals; readable after an interrupt.
  public var eventFD: Int32 { file.number }

  /// Lets the card signal again; what it has held back comes at once.
  public func enable() { onEnable() }

  /// Whether it came since the last call; true the first time, when nobody has looked yet.
  public func takeSignal() -> Bool {
    drain()
    return isSignalled.exchange(false, ordering: .relaxed)
  }

  /// Takes the eventfd's count, so that it is not readable any more.
  func drain() {
    var count: UInt64 = 0
    if unsafe read(file.number, &count, 8) == 8 { isSignalled.store(true, ordering: .relaxed) }
  }
}

/// The interrupts of one card: one for each receive queue, and one for all else.
///
/// A card with one queue may have a single interrupt for everything: then these are the same object.
public struct DeviceInterrupts: Sendable {
  /// What they are made of.
  public let kind: InterruptKind
  /// The interrupt of each receive queue: a frame has come.
  public let receive: [Interrupt]
  /// The link came, went or changed its speed.
  public let link: Interrupt

  /// Whether one interrupt stands for the queue and the link.
  public var isShared: Bool { link === receive[0] }

  /// Connects as many vectors as it takes, in one call: vector i to receive queue i, the next one to the link.
  ///
  /// Drivers call this, program the card, and then set each `onEnable`.
  ///
  /// - Parameters:
  ///   - pci: The card.
  ///   - queues: Its receive queues.
  /// - Throws: `DeviceError.refused` when the way to the card has no interrupts, or the card too few.
  init(of pci: any PCIDevice, queues: Int) throws(DeviceError) {
    guard let pci = pci as? any InterruptingDevice else {
      throw .refused(
        "Set up interrupts of \(pci.name)", found: "there are none on this way to the card",
        advice: "Bind it to vfio-pci (sudo ixy bind \(pci.name)), or poll: --interrupts off")
    }
    let vectors = try pci.interruptCount(.msix)
    if vectors > queues {
      kind = .msix
    } else if queues == 1, try pci.interruptCount(.msi) > 0 {
      kind = .msi
    } else if queues == 1, try pci.interruptCount(.intx) > 0 {
      kind = .intx
    } else {
      throw .refused(
        "Set up interrupts of \(pci.name)",
        found: "\(queues) queues and the link want \(queues + 1) MSI-X vectors, it has \(vectors)",
        advice: "Use fewer queues, or poll: --interrupts off")
    }
    var all: [Interrupt] = []
    for _ in 0..<(kind == .msix ? queues + 1 : 1) { all.append(try Interrupt()) }
    try pci.setInterrupts(kind, eventFDs: all.map(\.eventFD))
    receive = Array(all.prefix(queues))
    link = all[all.count - 1]
  }
}

extension DeviceInterrupts {
  /// Sets what `enable()` of each interrupt does on the card.
  ///
  /// - Parameters:
  ///   - pci: The card; its INTx line is unmasked after the card was told.
  ///   - enableReceive: Enables the interrupt of a receive queue.
  ///   - enableLink: Takes back the last link event, and enables the next.
  func onEnable(
    of pci: any PCIDevice, receive enableReceive: @escaping (Int) -> Void,
    link enableLink: @escaping () -> Void
  ) {
    guard isShared else {
      for (id, interrupt) in receive.enumerated() { interrupt.onEnable = { enableReceive(id) } }
      link.onEnable = enableLink
      return
    }
    let line = kind == .intx ? pci as? any InterruptingDevice : nil
    link.onEnable = {
      enableLink()
      enableReceive(0)
      // Nobody to tell: a card that is gone says so when its ring is looked at.
      try? line?.unmaskINTx()
    }
  }
}
