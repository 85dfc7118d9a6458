import Glibc
import Ixy

/// What is asked of a file that a peer sends, before it is mapped.
enum PeerMemory {
  static let pageSize = 4096
  /// SIGBUS is survived by putting a page of our own in the place of a truncated one, as large as that.
  private static let largestPage = 2 << 20

  /// Checks that `size` bytes from `offset` are memory.
  ///
  /// - Parameters:
  ///   - file: What came from the peer.
  ///   - offset: Where the mapping is to begin.
  ///   - size: Its length in bytes.
  ///   - takesHugePages: Whether the file may be on hugetlbfs. Its pages are mapped whole whatever is asked for, and
  ///     would cover what lies behind a smaller mapping at a fixed address.
  /// - Throws: `Refusal` when the file is no memory, or the bytes are not in it, or not whole pages of it.
  static func check(
    _ file: borrowing FileDescriptor, offset: UInt64, size: Int, takesHugePages: Bool
  ) throws(Refusal) {
    var (status, system) = (stat(), statvfs())
    guard unsafe fstat(file.number, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
      unsafe fstatvfs(file.number, &system) == 0, hasSeals(file)
    else { throw Refusal("its descriptor is not memory (memfd, tmpfs or hugetlbfs)") }
    let page = max(Int(system.f_bsize), pageSize)
    guard page <= (takesHugePages ? largestPage : pageSize) else {
      throw Refusal("its memory has pages of \(page) bytes")
    }
    // The kernel rounds the size of a mapping up, but takes away only whole huge pages.
    guard offset % UInt64(page) == 0, page == pageSize || size % page == 0 else {
      throw Refusal("\(size) bytes from \(offset) are not whole pages of \(page) bytes")
    }
    // Behind its end every access would be a SIGBUS.
    let (end, wraps) = offset.addingReportingOverflow(UInt64(size))
    guard !wraps, end <= UInt64(max(status.st_size, 0)) else {
      throw Refusal("\(size) bytes from \(offset) are not in its file of \(status.st_size) bytes")
    }
  }

  /// Only memory knows seals; a file of some user's file system could stall every access for ever.
  private static func hasSeals(_ file: borrowing FileDescriptor) -> Bool {
    let getSeals: Int32 = 1034  // F_GET_SEALS, hidden from the importer
    return fcntl(file.number, getSeals) >= 0
  }
}
