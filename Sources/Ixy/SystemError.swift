import Glibc

/// Why something could not be done with a device, its memory or the machine.
///
/// Every message has three parts: what was tried, what was found, what to do next.
public enum DeviceError: Error {
  /// A system call failed with `errno`; `advice` is the way out, or empty where there is none.
  case system(_ tried: String, errno: Int32, advice: String)
  /// The input or the machine does not allow it; nothing has been changed.
  case refused(_ tried: String, found: String, advice: String)
  /// The device did not get there in time.
  case timeout(device: String, waitingFor: String, limit: Duration)
  /// The device reads as all ones, or its server closed the connection.
  case gone(device: String)
  /// The device broke its protocol, and its queue is stopped.
  case misbehaved(device: String, _ how: String)
  /// Fewer huge pages are free than needed.
  case tooFewHugePages(needed: Int, free: Int)

  /// The error of the system call that has just failed.
  public static func lastError(_ tried: String, advice: String = "") -> DeviceError {
    .system(tried, errno: errno, advice: advice)
  }
}

extension DeviceError: CustomStringConvertible {
  /// What happened, and what to do about it.
  public var description: String {
    switch self {
    case .system(let tried, let code, let advice):
      Self.refused(tried, found: unsafe String(cString: strerror(code)), advice: advice).description
    case .refused(let tried, let found, ""): "\(tried): \(found)."
    case .refused(let tried, let found, let advice): "\(tried): \(found). \(advice)"
    case .timeout(let device, let event, let limit):
      "\(device): waited \(limit) for \(event), in vain. Reset the card, or look at cable and slot."
    case .gone(let device): "\(device): it reads all ones. Was it unplugged, or did its server end?"
    case .misbehaved(let device, let how):
      "\(device): \(how). The queue is stopped; reset the card to go on."
    case .tooFewHugePages(let needed, let free):
      "Need \(needed) free huge pages of 2 MiB, found \(free). "
        + "Run: sudo Scripts/setup-hugepages \(max(needed, 64))"
    }
  }
}

/// A file descriptor with one owner, closed with it.
public struct FileDescriptor: ~Copyable {
  /// The number the kernel knows it by.
  public let number: Int32

  /// Takes over an open descriptor.
  public init(owning number: Int32) { self.number = number }

  /// Opens `path`; `advice` goes into the error.
  public init(path: String, _ flags: Int32, advice: String = "") throws(DeviceError) {
    number = unsafe open(path, flags | O_CLOEXEC)
    if number < 0 { throw .lastError("Open \(path)", advice: advice) }
  }

  deinit { close(number) }
}

/// The first line of a small file of the kernel's; nil when it cannot be read.
func firstLine(of path: String) -> String? {
  guard let file = try? FileDescriptor(path: path, O_RDONLY) else { return nil }
  let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 256) { buffer, count in
    count = unsafe max(0, read(file.number, buffer.baseAddress, 256))
  }
  return String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
}
