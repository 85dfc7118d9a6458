import CIxy
import Emulation
import Glibc
import Ixy

/// The eventfds that a client has attached to the interrupts of a device.
final class InterruptFDs: InterruptSink {
  /// An eventfd of the client's, ours until it is replaced.
  private final class EventFD {
    private let file: FileDescriptor

    init(_ file: consuming FileDescriptor) { self.file = file }

    /// Adds 1, without waiting.
    func signal() { ixy_signal(file.number) }
  }

  private struct Vector {
    var eventFD: EventFD?
    /// Signalled while nothing was attached: QEMU detaches all vectors to add one.
    var isPending = false
  }

  /// By index: INTx, MSI, MSI-X, device error, request to unplug.
  ///
  /// Clients arm the last two; they stay silent.
  private var vectors: [[Vector]]
  /// INTx is level triggered: after a signal it stays silent until the client unmasks it.
  private var isINTxMasked = false
  /// Called when INTx is unmasked: its cause may still be there.
  private let onUnmask: () -> Void

  init(counts: (intx: Int, msi: Int, msix: Int), onUnmask: @escaping () -> Void) {
    vectors = [counts.intx, counts.msi, counts.msix, 1, 1].map { count in
      Array(repeating: Vector(), count: max(0, count))
    }
    self.onUnmask = onUnmask
  }

  /// The number of indices that a client may ask about.
  var indexCount: Int { vectors.count }

  /// The number of vectors at an index; nil when there is no such index.
  func count(at index: Int) -> Int? {
    vectors.indices.contains(index) ? vectors[index].count : nil
  }

  func signal(_ kind: InterruptKind, vector: Int) {
    guard vectors[kind.rawValue].indices.contains(vector) else { return }
    if kind == .intx {
      if isINTxMasked { return }
      isINTxMasked = true
    }
    send(kind.rawValue, vector)
  }

  private func send(_ index: Int, _ vector: Int) {
    let eventFD = vectors[index][vector].eventFD
    vectors[index][vector].isPending = eventFD == nil
    eventFD?.signal()
  }

  /// Forgets interrupts that waited for an eventfd, and unmasks: the device was reset.
  func reset() {
    for index in vectors.indices {
      for vector in vectors[index].indices { vectors[index][vector].isPending = false }
    }
    isINTxMasked = false
  }

  /// Obeys SET_IRQS.
  func set(_ request: SetIRQs, _ files: ReceivedFiles) throws(Refusal) {
    guard let available = count(at: request.index) else { throw Refusal("there is no such index") }
    guard files.count == 0 || request.data == .eventFD else {
      throw Refusal("descriptors came with it")
    }
    if request.count == 0 {
      guard request.start == 0, request.action == .trigger, request.data == .none else {
        throw Refusal("it means no vector")
      }
      for vector in 0..<available { attach(nil, request.index, vector) }
      return
    }
    guard request.start < available, request.count <= available - request.start else {
      throw Refusal("the device has \(available) such vectors")
    }
    switch request.action {
    case .trigger: try trigger(request, files)
    case .mask, .unmask: try mask(request)
    }
  }

  /// Attaches or detaches eventfds, or plays the device for a test of the client's.
  private func trigger(_ request: SetIRQs, _ files: ReceivedFiles) throws(Refusal) {
    if request.data == .eventFD {
      guard files.count == 0 || files.count == request.count else {
        throw Refusal("\(files.count) descriptors came for \(request.count) vectors")
      }
      var eventFDs: [EventFD] = []
      while let file = files.takeFirst() { eventFDs.append(try Self.eventFD(file)) }
      for offset in 0..<request.count {
        attach(eventFDs.isEmpty ? nil : eventFDs[offset], request.index, request.start + offset)
      }
      return
    }
    for offset in 0..<request.count where request.data == .none || request.flags[offset] {
      send(request.index, request.start + offset)
    }
  }

  private func attach(_ eventFD: EventFD?, _ index: Int, _ vector: Int) {
    vectors[index][vector].eventFD = eventFD
    if index == InterruptKind.intx.rawValue {
      isINTxMasked = false
      if eventFD != nil { onUnmask() }
    } else if eventFD != nil, vectors[index][vector].isPending {
      send(index, vector)
    }
  }

  private static func eventFD(_ file: consuming FileDescriptor) throws(Refusal) -> EventFD {
    // A pipe or a socket would take bytes that nobody reads, and be full some day.
    var name = [UInt8](repeating: 0, count: 32)
    let size = unsafe readlink("/proc/self/fd/\(file.number)", &name, name.count)
    guard String(decoding: name.prefix(max(0, size)), as: UTF8.self) == "anon_inode:[eventfd]"
    else { throw Refusal("a descriptor is no eventfd") }
    return EventFD(file)
  }

  /// Masks or unmasks INTx, the only kind that can be.
  private func mask(_ request: SetIRQs) throws(Refusal) {
    guard request.index == InterruptKind.intx.rawValue, request.data != .eventFD else {
      throw Refusal(ENOTSUP, "only INTx is masked, and by message")
    }
    guard request.data == .none || request.flags == [true] else { return }
    isINTxMasked = request.action == .mask
    if !isINTxMasked { onUnmask() }
  }
}
