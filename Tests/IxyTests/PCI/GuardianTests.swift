import CIxy
import Glibc
import Testing

@testable import Ixy

/// The process that stops a card when its parent dies: for it, a socket that closes is a death.
@Suite struct GuardianTests {
  private let tree = MachineTree()

  /// Config space whose command register has memory access and bus mastering on.
  private func makeCard() throws -> FileDescriptor {
    tree.file("config", "01234567")
    tree.file("reset", "")
    let config = try FileDescriptor(path: tree.root + "/config", O_RDWR)
    var command: UInt16 = 6
    #expect(pwrite(config.number, &command, 2, 4) == 2)
    return config
  }

  private func command(_ config: borrowing FileDescriptor) -> UInt16 {
    var command: UInt16 = 0
    #expect(pread(config.number, &command, 2, 4) == 2)
    return command
  }

  @Test func `a death switches bus mastering off before the reset`() throws {
    let config = try makeCard()
    var process: Int32 = 0
    let socket = ixy_start_guardian(config.number, tree.root + "/reset", &process)
    #expect(socket >= 0 && process > 0)
    close(socket)
    #expect(waitpid(process, nil, 0) == process)
    #expect(command(config) == 2)
    #expect(tree.text("reset") == "1")
  }

  @Test func `a clean end leaves the card as it is`() throws {
    let config = try makeCard()
    do { _ = try Guardian(config: config.number, reset: tree.root + "/reset") }
    #expect(command(config) == 6)
    #expect(tree.text("reset") == "")
  }

  @Test func `the card stays locked until it is stopped`() throws {
    let config = try makeCard()
    var process: Int32 = 0
    #expect(flock(config.number, LOCK_EX | LOCK_NB) == 0)
    let socket = ixy_start_guardian(config.number, tree.root + "/reset", &process)
    _ = consume config
    let other = try FileDescriptor(path: tree.root + "/config", O_RDWR)
    #expect(flock(other.number, LOCK_EX | LOCK_NB) != 0)
    close(socket)
    #expect(waitpid(process, nil, 0) == process)
    let number = other.number
    #expect(eventually { flock(number, LOCK_EX | LOCK_NB) == 0 })
    #expect(command(other) == 2)
  }

  @Test func `it holds the card's memory until that is released`() throws {
    let config = try makeCard()
    let guardian = try Guardian(config: config.number, reset: tree.root + "/reset")
    let memory = FileDescriptor(owning: ixy_memfd("guarded", 1))
    #expect(ftruncate(memory.number, 8192) == 0)
    try guardian.map(
      file: memory.number, offset: 0, base: try #require(UnsafeMutableRawPointer(bitPattern: 4096)),
      iova: 4096,
      size: 8192)
    #expect(guardian.holds("guarded"))
    guardian.unmap(iova: 4096, size: 8192)
    #expect(!guardian.holds("guarded"))
  }
}

extension Guardian {
  /// Whether a memfd of that name is mapped in the process.
  fileprivate func holds(_ name: String) -> Bool {
    (contents(of: "/proc/\(process)/maps") ?? "").contains("memfd:\(name)")
  }
}
