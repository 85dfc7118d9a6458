import Glibc
import Ixy

/// A cable to another process over Unix datagram sockets, one frame each, as QEMU's `-netdev dgram` has it.
public final class DatagramWire: Wire {
  private let localPath: String
  private let remote: SocketAddress
  private let port: FramePort
  /// The file that we have made at `localPath`; 0 when there is none.
  private var inode: ino_t = 0
  private var isThere = false
  private var lastLook: UInt64 = 0
  /// How often we look whether the peer is there, in nanoseconds.
  private static let interval: UInt64 = 100_000_000

  /// Makes our socket; the peer may come later.
  ///
  /// - Parameters:
  ///   - local: Where our socket shall be. A file that a dead process left there goes.
  ///   - remote: Where the peer's is, or will be.
  /// - Throws: `DeviceError` when a path is too long or `local` is in use.
  public init(local: String, remote: String) throws(DeviceError) {
    localPath = local
    let address = try SocketAddress(path: local)
    let remote = try SocketAddress(path: remote)
    self.remote = remote
    let socket = FileDescriptor(owning: Self.makeSocket())
    guard socket.number >= 0 else { throw .lastError("Make a socket") }
    try Self.removeLeftover(at: local, address)
    let number = socket.number
    guard unsafe address.use({ unsafe bind(number, $0, $1) }) == 0 else {
      let advice = "Is the directory there, and may you write to it?"
      throw .lastError("Make the socket \(local)", advice: advice)
    }
    inode = Self.inode(of: local) ?? 0
    port = unsafe FramePort(socket) { socket, frame in
      unsafe remote.use {
        unsafe sendto(socket, frame.baseAddress, frame.count, Int32(MSG_NOSIGNAL), $0, $1)
      }
    }
  }

  deinit { removeFile() }

  private static func makeSocket() -> Int32 {
    let kind = SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue
    return socket(AF_UNIX, Int32(kind), 0)
  }

  /// Removes a socket that nobody listens at; anything else that is there stays, and is an error.
  private static func removeLeftover(at path: String, _ address: SocketAddress)
    throws(DeviceError)
  {
    var status = stat()
    if unsafe lstat(path, &status) != 0 { return }
    let tried = "Make the socket \(path)"
    guard status.st_mode & S_IFMT == S_IFSOCK else {
      throw .refused(
        tried, found: "a file is there that is no socket", advice: "Give another path.")
    }
    // Nothing else says that a socket is dead: other kinds of socket refuse in other ways.
    if answers(address) || errno != ECONNREFUSED {
      throw .refused(tried, found: "another process has it", advice: "Give another path.")
    }
    unsafe unlink(path)
  }

  /// Whether a process has a datagram socket there.
  private static func answers(_ address: SocketAddress) -> Bool {
    let probe = FileDescriptor(owning: makeSocket())
    let number = probe.number
    let result = unsafe address.use { unsafe connect(number, $0, $1) }
    return result == 0
  }

  private static func inode(of path: String) -> ino_t? {
    var status = stat()
    return unsafe lstat(path, &status) == 0 ? status.st_ino : nil
  }

  private func removeFile() {
    if inode != 0, Self.inode(of: localPath) == inode { unsafe unlink(localPath) }
    inode = 0
  }

  /// "dgram".
  public var kind: String { "dgram" }
  /// The socket's queue holds what finds no descriptor.
  public var waitsForDescriptors: Bool { true }
  /// The socket.
  public var readiness: Int32? { port.file.number }

  /// Whether the peer has its socket.
  public var isConnected: Bool {
    let now = monotonicNanoseconds()
    if now &- lastLook >= Self.interval {
      lastLook = now
      isThere = Self.answers(remote)
    }
    return isThere
  }

  /// No while the peer's queue is full.
  public var canSend: Bool { port.canSend }
  /// What went over it; dropped is what was sent while nobody was there.
  public var counts: WireCounts { port.counts }

  /// Sends a frame; drops it when nobody is there.
  public func send(_ frame: UnsafeRawBufferPointer) { unsafe port.send(frame) }

  /// The next frame that came.
  public func nextFrame() -> UnsafeRawBufferPointer? { unsafe port.nextFrame() }

  /// Takes that frame away.
  public func takeFrame() { port.takeFrame() }

  /// Starts to read, or pauses: the socket's queue fills, and the peer waits.
  public func receiverChanged(isOn: Bool) { port.isOn = isOn }

  /// Removes our socket's file.
  public func close() { removeFile() }
}

/// The address of a Unix socket.
private struct SocketAddress {
  private var address = sockaddr_un()

  init(path: String) throws(DeviceError) {
    let bytes = Array(path.utf8)
    let room = MemoryLayout.size(ofValue: address.sun_path) - 1
    guard (1...room).contains(bytes.count) else {
      throw .refused(
        "Use the socket path \(path)", found: "it has \(bytes.count) bytes",
        advice: "The system allows 1 to \(room).")
    }
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
  }

  func use<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    unsafe withUnsafePointer(to: address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
