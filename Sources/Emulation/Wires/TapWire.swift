import CIxy
import Glibc
import Ixy

/// A cable to this machine's own network: a tap interface.
public final class TapWire: Wire {
  /// The name that the interface has.
  public let name: String
  private let port: FramePort
  /// What the kernel had dropped before we came: an interface can be older than its user.
  private var droppedBefore: UInt32 = 0

  /// Makes an interface, or takes one that is there and ours, and brings it up.
  ///
  /// - Parameter name: What it shall be called; nil takes the next free of ixy0, ixy1, ...
  /// - Throws: `DeviceError` when the kernel, or our rights, do not allow it.
  public init(name: String?) throws(DeviceError) {
    let wanted = name ?? "ixy%d"
    let tried = "Make the tap interface \(name ?? "ixy0")"
    let file = try FileDescriptor(
      path: "/dev/net/tun", O_RDWR | O_NONBLOCK,
      advice: "Load the module (modprobe tun), or in a container allow the device.")
    var request = InterfaceRequest(name: wanted)
    request.flags = Self.tapWithoutHeader
    if unsafe ixy_ioctl(file.number, Self.setInterface, &request.bytes) != 0 {
      let advice =
        switch errno {
        case EPERM:
          "Run as root, or first: sudo ip tuntap add \(name ?? "ixy0") mode tap user $USER"
        case EBUSY: "Another process uses it; give another name."
        case EINVAL: "An interface of this name is there and no tap; give another name."
        default: ""
        }
      throw .lastError(tried, advice: advice)
    }
    self.name = request.name
    // A persistent interface keeps what its last user has set.
    ixy_ioctl_value(file.number, Self.setOffload, 0)
    port = unsafe FramePort(file) { unsafe write($0, $1.baseAddress, $1.count) }
    try bringUp()
    droppedBefore = droppedByKernel() ?? 0
  }

  // From linux/if_tun.h and linux/sockios.h.
  private static let setInterface: UInt = 0x4004_54CA
  private static let setOffload: UInt = 0x4004_54D0
  private static let getFlags: UInt = 0x8913
  private static let setFlags: UInt = 0x8914
  private static let setQueueLength: UInt = 0x8943
  private static let tapWithoutHeader: Int16 = 0x0002 | 0x1000
  private static let interfaceUp: Int16 = 1
  /// Frames that the kernel keeps for us.
  ///
  /// It drops what comes on top, and the 500 that it has by default are soon full.
  private static let queueLength: Int32 = 8192

  private func bringUp() throws(DeviceError) {
    let control = FileDescriptor(owning: socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0))
    var request = InterfaceRequest(name: name)
    guard control.number >= 0,
      unsafe ixy_ioctl(control.number, Self.getFlags, &request.bytes) == 0
    else { throw .lastError("Ask for the state of \(name)") }
    let flags = request.flags
    request.number = Self.queueLength
    // Not worth an error: without the right to do it, the queue is as its maker left it.
    unsafe ixy_ioctl(control.number, Self.setQueueLength, &request.bytes)
    if flags & Self.interfaceUp != 0 { return }
    request.flags = flags | Self.interfaceUp
    guard unsafe ixy_ioctl(control.number, Self.setFlags, &request.bytes) == 0 else {
      throw .lastError("Bring \(name) up", advice: "Run: sudo ip link set \(name) up")
    }
  }

  /// "tap".
  public var kind: String { "tap" }
  /// The kernel's queue holds what finds no descriptor.
  public var waitsForDescriptors: Bool { true }
  /// Until the interface is deleted.
  public var isConnected: Bool { port.problem != EBADFD }
  /// The interface.
  public var readiness: Int32? { port.file.number }
  /// No while the kernel has no memory for the last frame.
  public var canSend: Bool { port.canSend }

  /// What went over it; dropped is also what the kernel dropped because its queue was full.
  public var counts: WireCounts {
    var counts = port.counts
    if let dropped = droppedByKernel() { counts.dropped += UInt64(dropped &- droppedBefore) }
    return counts
  }

  /// Gives a frame to the kernel, which drops it while the interface is down.
  public func send(_ frame: UnsafeRawBufferPointer) { unsafe port.send(frame) }

  /// The next frame from the kernel.
  public func nextFrame() -> UnsafeRawBufferPointer? { unsafe port.nextFrame() }

  /// Takes that frame away.
  public func takeFrame() { port.takeFrame() }

  /// Starts to read, or pauses: the kernel's queue fills.
  public func receiverChanged(isOn: Bool) { port.isOn = isOn }

  /// Says whether the interface was there until now.
  public func close() throws(DeviceError) {
    guard isConnected else {
      throw .refused("Use the interface \(name)", found: "it was deleted meanwhile", advice: "")
    }
  }

  /// What the interface counts as dropped on its way to us; nil when it is not in our namespace.
  private func droppedByKernel() -> UInt32? {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard unsafe getifaddrs(&list) == 0 else { return nil }
    defer { unsafe freeifaddrs(list) }
    var next = unsafe list
    while let entry = unsafe next?.pointee {
      unsafe next = entry.ifa_next
      // SAFETY: for packet sockets it is a `rtnl_link_stats`, whose field 7 is tx_dropped.
      guard unsafe entry.ifa_addr?.pointee.sa_family == UInt16(AF_PACKET),
        unsafe String(cString: entry.ifa_name) == name, let data = unsafe entry.ifa_data
      else { continue }
      return unsafe data.load(fromByteOffset: 28, as: UInt32.self)
    }
    return nil
  }
}

/// The kernel's `struct ifreq`: a name of 16 bytes, and what is asked or answered.
private struct InterfaceRequest {
  var bytes = [UInt8](repeating: 0, count: 40)

  init(name: String) {
    for (i, byte) in name.utf8.prefix(15).enumerated() { bytes[i] = byte }
  }

  var name: String { String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }

  var flags: Int16 {
    get { Int16(truncatingIfNeeded: number) }
    set { number = Int32(newValue) }
  }

  var number: Int32 {
    get { (0..<4).reduce(0) { $0 | Int32(bytes[16 + $1]) << Int32(8 * $1) } }
    set {
      for i in 0..<4 { bytes[16 + i] = UInt8(truncatingIfNeeded: newValue >> Int32(8 * i)) }
    }
  }
}
