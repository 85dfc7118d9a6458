import Glibc
import Ixy

extension InProcessDevice: InterruptingDevice {
  /// The number of vectors that the model has.
  public func interruptCount(_ kind: InterruptKind) throws(DeviceError) -> Int {
    let counts = model.interruptCounts
    return switch kind {
    case .intx: counts.intx
    case .msi: counts.msi
    case .msix: counts.msix
    }
  }

  /// Makes the model signal eventfds, and switches interrupts of this kind on in its config space.
  public func setInterrupts(_ kind: InterruptKind, eventFDs: [Int32]) throws(DeviceError) {
    model.interrupts = eventFDs.isEmpty ? nil : EventFDs(kind, eventFDs)
    try switchInterrupts(kind, on: !eventFDs.isEmpty)
  }

  /// Lets INTx signal again.
  public func unmaskINTx() throws(DeviceError) {
    (model.interrupts as? EventFDs)?.isMasked = false
    model.unmaskedINTx()
  }
}

/// The eventfds behind a model's interrupts of one kind.
private final class EventFDs: InterruptSink {
  private let kind: InterruptKind
  /// Copies: the caller may close its own while the card still signals.
  private let files: [Int32]
  /// INTx is level triggered: after a signal it stays silent until it is unmasked.
  var isMasked = false

  init(_ kind: InterruptKind, _ files: [Int32]) {
    self.kind = kind
    self.files = files.map { fcntl($0, F_DUPFD_CLOEXEC, 0) }
  }

  deinit { for file in files where file >= 0 { close(file) } }

  func signal(_ kind: InterruptKind, vector: Int) {
    guard kind == self.kind, files.indices.contains(vector), !isMasked else { return }
    isMasked = kind == .intx
    var one: UInt64 = 1
    // An eventfd that is full has been signalled long ago.
    _ = unsafe write(files[vector], &one, 8)
  }
}
