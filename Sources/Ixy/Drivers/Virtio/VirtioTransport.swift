import CIxy
import Glibc

/// The registers of a virtio device, wherever they are; for the control plane only.
///
/// Everything about a queue goes through one selector: calls about queues must not overlap.
protocol VirtioTransport: AnyObject {
  /// Whether the device follows version 1 of the specification, or later.
  var isModern: Bool { get }
  var status: VirtioStatus { get set }
  /// What the device offers.
  var offered: VirtioFeatures { get }
  /// Tells the device what the driver accepts.
  func accept(_ features: VirtioFeatures)
  /// The number of entries that a ring of the queue may have, or has; 0 where there is no such queue.
  func queueSize(_ index: Int) -> Int
  /// Hands a ring to the device.
  ///
  /// - Returns: How to tell the device of new entries.
  func start(_ index: Int, _ ring: VirtioRingMemory) throws(DeviceError) -> VirtioDoorbell
  /// Takes a ring back from the device; false where it does not let go.
  func reset(_ index: Int) -> Bool
  /// One field of the network device's configuration; all ones beyond its end.
  func configuration(_ field: VirtioField) -> UInt64
  /// Writes one byte of the configuration, which only legacy devices allow.
  func setConfiguration(_ byte: UInt8, at offset: Int)
  /// Changes with the configuration; always 0 where the device does not count.
  var generation: UInt8 { get }
  /// Chooses the MSI-X vector of a queue, or for changes of the configuration (nil).
  ///
  /// - Returns: False when the device refuses it.
  func setVector(_ vector: UInt16, of queue: Int?) -> Bool
  /// Reads what an interrupt was for, which takes it back.
  func takeInterruptStatus() -> UInt8
}

extension VirtioTransport {
  /// Stops the device at once, and waits until it has forgotten everything.
  func reset(of device: String) throws(DeviceError) {
    status = []
    try waitForVirtio("the end of its reset", of: device) { () throws(DeviceError) in
      let status = status
      if status == .gone { throw .gone(device: device) }
      return status == []
    }
  }
}

/// Looks at once, and then every millisecond for a second, whether `condition` holds.
func waitForVirtio(
  _ event: String, of device: String, limit: Duration = .seconds(1),
  until condition: () throws(DeviceError) -> Bool
) throws(DeviceError) {
  let deadline = ContinuousClock.now + limit
  while true {
    // The clock before the condition: a process that slept too long still looks once more.
    let isLast = ContinuousClock.now >= deadline
    if try condition() { return }
    if isLast { throw .timeout(device: device, waitingFor: event, limit: limit) }
    usleep(1000)
  }
}

/// The register write that tells a device of new entries in one of its rings.
@safe @usableFromInline struct VirtioDoorbell {
  @usableFromInline let pointer: UnsafeMutableRawPointer?
  private let bar: BAR
  private let offset: Int
  @usableFromInline let queue: UInt16

  /// The notification of a queue, at an offset in a BAR.
  init(_ bar: BAR, _ offset: Int, queue: Int) {
    unsafe pointer = unsafe bar.pointer(to: offset, width: 2)
    self.bar = bar
    self.offset = offset
    self.queue = UInt16(truncatingIfNeeded: queue)
  }

  /// Costs a virtual machine thousands of instructions: only when the device wants it.
  @inlinable @inline(__always) func ring() {
    if let pointer = unsafe pointer { unsafe ixy_store16(pointer, queue) } else { forward() }
  }

  @usableFromInline @inline(never) func forward() {
    bar.write(UInt64(queue), to: offset, width: 2)
  }
}
