import CIxy
import Glibc
import Ixy

/// The 128 KiB of register storage of a card, in a memfd so that pages of it can be shared.
///
/// Only storage: what a read or a write sets off is decided elsewhere. Every access is volatile, because a
/// driver may write the shared pages at any time; what is read from them is input, read once. Who has the
/// file can map all of it, so that holds for every word.
@safe final class RegisterFile {
  // SAFETY: `base` is mapped from `init` to `deinit`, in one place also when it is renewed; the
  // file cannot shrink, and each offset is checked against its size.
  /// The bytes of storage.
  static let size = 128 << 10
  /// Its number is -1 when the kernel gave none the last time: then nobody new gets the registers.
  private(set) var file: FileDescriptor
  let base: UnsafeMutableRawPointer

  init() throws(DeviceError) {
    let file = try FileDescriptor(sealedMemory: Self.size, "82599")
    let protection = PROT_READ | PROT_WRITE
    let found = unsafe mmap(nil, Self.size, protection, MAP_SHARED, file.number, 0)
    guard let found = unsafe found, unsafe found != MAP_FAILED else {
      throw .system("Map a register file", errno: errno, advice: "")
    }
    unsafe base = found
    self.file = consume file
  }

  deinit { unsafe munmap(base, Self.size) }

  /// Puts zeros in a file of their own in the place of all registers: who has mapped the old one reaches it alone.
  ///
  /// - Returns: False when the kernel has no mapping for that: who had the registers has them still.
  func renew() -> Bool {
    file = (try? FileDescriptor(sealedMemory: Self.size, "82599")) ?? FileDescriptor(owning: -1)
    let flags = MAP_FIXED | (file.number < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED)
    let found = unsafe mmap(base, Self.size, PROT_READ | PROT_WRITE, flags, file.number, 0)
    if unsafe found == base { return true }
    file = FileDescriptor(owning: -1)
    return false
  }

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
