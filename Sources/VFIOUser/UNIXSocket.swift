import Glibc
import Ixy

/// Connects to the server at `path`.
///
/// It waits up to `limit` for a place in the server's queue.
func connectSocket(to path: String, limit: Duration = .zero) -> Result<Int32, SocketError> {
  let socket = makeSocket()
  guard socket >= 0 else { return .failure(SocketError(errno: errno)) }
  if limit == .zero {
    _ = fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK)
  } else {
    let (seconds, attoseconds) = limit.components
    // All zero would be no limit.
    var time = timeval(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000) | 1)
    _ = unsafe setsockopt(
      socket, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout.size(ofValue: time)))
  }
  let result = unsafe withAddress(path) { address, size in unsafe connect(socket, address, size) }
  guard result == 0 else {
    defer { close(socket) }
    return .failure(SocketError(errno: errno))
  }
  return .success(socket)
}

/// The errno of a socket call.
struct SocketError: Error {
  let errno: Int32
}

private func makeSocket() -> Int32 {
  socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
}

/// The longest path of a socket: a field of 108 bytes, with its NUL.
private let longestPath = 107

/// Calls `body` with a path as socket calls want it; -1 and ENAMETOOLONG when it is too long.
private func withAddress(
  _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
) -> Int32 {
  guard path.utf8.count <= longestPath else {
    errno = ENAMETOOLONG
    return -1
  }
  var address = sockaddr_un()
  address.sun_family = sa_family_t(AF_UNIX)
  unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
  return unsafe withUnsafePointer(to: &address) { pointer in
    // SAFETY: a sockaddr_un begins as every sockaddr does.
    unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
      unsafe body(pointer, socklen_t(MemoryLayout<sockaddr_un>.size))
    }
  }
}

/// A socket that waits for clients at a path.
///
/// The path is there when it is ready, and gone with it.
struct ListeningSocket: ~Copyable {
  private let file: FileDescriptor
  private let path: String
  private let inode: UInt

  /// Makes the socket at `path`; one that a dead server has left there is replaced.
  init(path: String) throws(DeviceError) {
    let (socket, inode) = try Self.listen(at: path)
    file = FileDescriptor(owning: socket)
    self.path = path
    self.inode = inode
  }

  private static func listen(at path: String) throws(DeviceError) -> (socket: Int32, inode: UInt) {
    let tried = "Serve a card at \(path)"
    // Made under another name: who finds the path can connect.
    let draft = "\(path).\(getpid())"
    guard draft.utf8.count <= longestPath else {
      throw .refused(
        tried, found: "the path has more than 100 bytes", advice: "Choose a shorter one.")
    }
    try removeStale(path, tried)
    let socket = makeSocket()
    unsafe unlink(draft)
    let isBound = unsafe withAddress(draft) { unsafe bind(socket, $0, $1) } == 0
    defer { unsafe unlink(draft) }
    // Unlike a rename, a link takes the path from nobody who came in between.
    guard isBound, Glibc.listen(socket, 8) == 0, let inode = fileStatus(draft)?.st_ino,
      unsafe link(draft, path) == 0
    else {
      let code = errno
      close(socket)
      throw .system(tried, errno: code, advice: "May you write to its folder? Is the path free?")
    }
    _ = fcntl(socket, F_SETFL, O_NONBLOCK)
    return (socket, inode)
  }

  deinit {
    // Another server may have replaced it, if somebody removed it before.
    if fileStatus(path)?.st_ino == inode { unsafe unlink(path) }
  }

  private static func removeStale(_ path: String, _ tried: String) throws(DeviceError) {
    guard let status = fileStatus(path) else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else {
      throw .refused(
        tried, found: "a file that is no socket is there",
        advice: "Choose another path, or remove it.")
    }
    switch connectSocket(to: path) {
    case .failure(let error) where error.errno == ECONNREFUSED: unsafe unlink(path)
    case .failure(let error) where error.errno != EAGAIN:
      throw .system(tried, errno: error.errno, advice: "Choose another path.")
    case .failure: throw busy(tried)
    case .success(let socket):
      close(socket)
      throw busy(tried)
    }
  }

  private static func busy(_ tried: String) -> DeviceError {
    .refused(
      tried, found: "another server is running there",
      advice: "End it, or choose another path.")
  }

  /// What `poll` needs to wait for a client.
  var pollEntry: pollfd { pollfd(fd: file.number, events: Int16(POLLIN), revents: 0) }

  /// The next client, if one waits.
  func nextClient() -> FileDescriptor? {
    let socket = accept(file.number, nil, nil)
    if socket < 0 { return nil }
    _ = fcntl(socket, F_SETFD, FD_CLOEXEC)
    return FileDescriptor(owning: socket)
  }
}

/// What is at a path, links not followed; nil when nothing is.
private func fileStatus(_ path: String) -> stat? {
  var status = stat()
  return unsafe lstat(path, &status) == 0 ? status : nil
}
