import CIxy
import Glibc
import Ixy

/// The 128 KiB of register storage of a card, in a memfd so that pages of it can be shared.
///
/// Only storage: what a read or a write sets off is decided elsewhere. Every access is volatile, because a
/// driver may write the shared pages at any time; what is read from them is input, read once.
@safe final class RegisterFile {
  /// The bytes of storage.
  static let size = 128 << 10
  let file: FileDescriptor
  let base: UnsafeMutableRawPointer

  init() throws(DeviceError) {
    file = FileDescriptor(owning: unsafe ixy_memfd("82599", IXY_MEMFD_CLOEXEC))
    guard file.number >= 0, ftruncate(file.number, Self.size) == 0 else {
      throw .system("Make a register file", errno: errno, advice: "")
    }
    let protection = PROT_READ | PROT_WRITE
    let found = unsafe mmap(nil, Self.size, protection, MAP_SHARED, file.number, 0)
    guard let found = unsafe found, unsafe found != MAP_FAILED else {
      throw .system("Map a register file", errno: errno, advice: "")
    }
    unsafe base = found
  }

  deinit { unsafe munmap(base, Self.size) }

  /// The register at `offset`, a multiple of 4 inside the file.
  subscript(offset: Int) -> UInt32 {
    @inline(__always) get {
      precondition(offset >= 0 && offset <= Self.size - 4)
      return unsafe ixy_load32(base + offset)
    }
    @inline(__always) set {
      precondition(offset >= 0 && offset <= Self.size - 4)
      unsafe ixy_store32(base + offset, newValue)
    }
  }

  /// Whether any of `flags` is set in a register.
  @inline(__always) func has(_ flags: UInt32, at offset: Int) -> Bool { self[offset] & flags != 0 }
}
