import CIxy
import Glibc

/// The text of a file of the kernel's; nil when it cannot be read.
func contents(of path: String) -> String? {
  guard let file = try? FileDescriptor(path: path, O_RDONLY) else { return nil }
  var text: [UInt8] = []
  while true {
    let part = unsafe [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
      count = unsafe max(0, read(file.number, buffer.baseAddress, 4096))
    }
    if part.isEmpty { return String(decoding: text, as: UTF8.self) }
    text += part
  }
}

/// The names in a directory, sorted; empty when it cannot be read.
func entries(of path: String) -> [String] {
  guard let directory = unsafe opendir(path) else { return [] }
  defer { unsafe closedir(directory) }
  var names: [String] = []
  while let entry = unsafe readdir(directory) {
    let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
      unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    if name != ".", name != ".." { names.append(name) }
  }
  return names.sorted()
}

/// Writes `text` to a file of the kernel's.
func write(_ text: String, to path: String) throws(DeviceError) {
  let file = try FileDescriptor(path: path, O_WRONLY, advice: "Run as root.")
  if unsafe Glibc.write(file.number, text, text.utf8.count) < 0 {
    throw .lastError("Write \(text) to \(path)")
  }
}

extension FileDescriptor {
  /// A file of memory whose size nobody can change: who gets it could else shrink it, and the next access of ours
  /// would be fatal.
  package init(sealedMemory size: Int, _ name: String, _ flags: UInt32 = 0) throws(DeviceError) {
    // What Glibc hides: MFD_ALLOW_SEALING, F_ADD_SEALS, and the seals against a change of size or of seals.
    let (allowSealing, addSeals, seals) = (2 as UInt32, 1033 as Int32, 7 as Int32)
    self.init(owning: unsafe ixy_memfd(name, IXY_MEMFD_CLOEXEC | allowSealing | flags))
    guard number >= 0, ftruncate(number, size) == 0, fcntl(number, addSeals, seals) == 0 else {
      throw .lastError("Make \(size) bytes of memory that others can map")
    }
  }

  /// Opens a device node for both ways; `advice` says what to do about an error.
  init(device path: String, advice: (Int32) -> String) throws(DeviceError) {
    let number = unsafe open(path, O_RDWR | O_CLOEXEC)
    if number < 0 {
      let code = errno
      throw .system("Open \(path)", errno: code, advice: advice(code))
    }
    self.init(owning: number)
  }
}
