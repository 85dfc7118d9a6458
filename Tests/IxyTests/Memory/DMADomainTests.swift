import CIxy
import Emulation
import Glibc
import Testing

@testable import Ixy

@Suite struct DMADomainTests {
  @Test func `memory is aligned as asked for`() throws {
    let (domain, _) = try testDomain()
    _ = try domain.allocate(3)
    for alignment in [128, 512, 4096] {
      let memory = try domain.allocate(100, alignment: alignment)
      #expect(memory.iova % UInt64(alignment) == 0)
      #expect(UInt(bitPattern: memory.base) % UInt(alignment) == 0)
    }
  }

  @Test func `every byte lies at one constant and its IOVA`() throws {
    let (domain, _) = try testDomain()
    let first = try domain.allocate(1000)
    let second = try domain.allocate(5 << 20)
    let offsets = [
      first.iova &- UInt64(UInt(bitPattern: first.base)),
      second.iova &- UInt64(UInt(bitPattern: second.base)),
    ]
    #expect(offsets[0] == offsets[1])
  }

  @Test func `small pieces share a block`() throws {
    let (domain, table) = try testDomain()
    let first = try domain.allocate(8192)
    let second = try domain.allocate(8192)
    #expect(table.count == 1)
    #expect(second.iova >= first.iova + 8192)
  }

  @Test func `a block goes with its last piece`() throws {
    let (domain, table) = try testDomain()
    do {
      let first = try domain.allocate(8192)
      #expect(first.size == 8192 && table.count == 1)
    }
    #expect(table.count == 0)
  }

  @Test func `a device that comes later sees what is there`() throws {
    let (domain, _) = try testDomain()
    let memory = try domain.allocate(64)
    let late = DMATable()
    try domain.attach(late)
    #expect(late.pointer(to: memory.iova, count: 64, forWriting: true) == memory.base)
  }

  @Test func `IOVAs avoid what a device cannot reach`() throws {
    let domain = DMADomain()
    let narrow = NarrowMapper([0...0x3F_FFFF, 0x100_0000...0x7F_FFFF_FFFF])
    try domain.attach(narrow)
    let first = try domain.allocate(2 << 20)
    let second = try domain.allocate(2 << 20)
    #expect(first.iova == 0x20_0000)
    #expect(second.iova == 0x100_0000)
  }

  @Test func `a domain gives its address space back`() throws {
    // Each takes an eighth of what a process has, and a little more.
    for _ in 0..<20 {
      let domain = DMADomain()
      domain.addressing = WideAddresses()
      let memory = try domain.allocate(64)
      #expect(memory.iova == 2 << 20)
    }
  }

  @Test func `IOVAs are what each of several devices reaches`() throws {
    // 39 address bits and no low addresses; 32 bits with a hole.
    let vtd = NarrowMapper([0x40_0000...(1 << 39) - 1])
    let pc = NarrowMapper([0...0x4F_FFFF, 0x60_0000...0xFEDF_FFFF])
    let domain = DMADomain()
    try domain.attach(vtd)
    try domain.attach(pc)
    let first = try domain.allocate(2 << 20)
    let second = try domain.allocate(4 << 20)
    #expect([first.iova, second.iova] == [0x60_0000, 0x80_0000])
    #expect(vtd.mapped == [0x60_0000...0x7F_FFFF, 0x80_0000...0xBF_FFFF])
    #expect(pc.mapped == vtd.mapped)
  }

  @Test func `no room that every device reaches is an error with its own message`() throws {
    let domain = DMADomain()
    let narrow = NarrowMapper([0...0x5F_FFFF])
    try domain.attach(narrow)
    let first = try domain.allocate(2 << 20)
    let second = try domain.allocate(2 << 20)
    #expect([first.iova, second.iova] == [0x20_0000, 0x40_0000])
    let text = message { _ = try domain.allocate(64) }
    #expect(text.contains("there is no room below 16 GiB that every card can reach"))
    #expect(text.contains("Use fewer or smaller mempools"))
  }

  @Test func `memory that is taken and dropped for ever never runs out of addresses`() throws {
    let (domain, table) = try testDomain()
    let kept = try domain.allocate(2 << 20)
    // All IOVAs would be used up after 8,190.
    for _ in 0..<20_000 {
      let memory = try domain.allocate(2 << 20)
      #expect(memory.iova == 0x40_0000)
    }
    #expect(table.count == 1)
    withExtendedLifetime(kept) {}
  }

  @Test func `a block between two others has their addresses neither before nor after`() throws {
    let (domain, _) = try testDomain()
    let first = try domain.allocate(2 << 20)
    do {
      let hole = try domain.allocate(4 << 20)
      let third = try domain.allocate(2 << 20)
      #expect([first.iova, hole.iova, third.iova] == [0x20_0000, 0x40_0000, 0x80_0000])
      _ = consume hole
      let larger = try domain.allocate(6 << 20)
      let filler = try domain.allocate(4 << 20)
      #expect([larger.iova, filler.iova] == [0xA0_0000, 0x40_0000])
      filler.base.storeBytes(of: 1, as: UInt8.self)
      #expect(third.base.load(as: UInt8.self) == 0)
    }
    let again = try domain.allocate(2 << 20)
    #expect(again.iova == 0x40_0000)
    withExtendedLifetime(first) {}
  }

  @Test func `a device that cannot reach what is there is refused`() throws {
    let (domain, _) = try testDomain()
    let memory = try domain.allocate(64)
    let narrow = NarrowMapper([0...0xFFFF])
    #expect(throws: DeviceError.self) { try domain.attach(narrow) }
    withExtendedLifetime(memory) {}
  }

  private static let hugePages = firstLine(of: "/proc/sys/vm/nr_hugepages")

  @Test(.enabled(if: hugePages ?? "0" == "0", "the machine has huge pages"))
  func `without huge pages physical addresses have the command that gets some`() throws {
    let domain = DMADomain()
    try domain.usePhysicalAddresses()
    #expect(message { _ = try domain.allocate(64) }.contains("sudo Scripts/setup-hugepages"))
  }
}

private final class NarrowMapper: DMAMapper {
  let usableIOVAs: [ClosedRange<UInt64>]
  private(set) var mapped: [ClosedRange<UInt64>] = []

  init(_ ranges: [ClosedRange<UInt64>]) { usableIOVAs = ranges }

  func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) {
    let range = iova...iova + UInt64(size) - 1
    // As the kernel's IOMMU does.
    let isReachable = usableIOVAs.contains {
      $0.contains(range.lowerBound) && $0.contains(range.upperBound)
    }
    if !isReachable { throw mapError(EINVAL, iova: iova, size: size) }
    mapped.append(range)
  }

  func unmap(iova: UInt64, size: Int) {}
}

/// As much address space as physical addresses need, and ordinary memory.
private final class WideAddresses: DMAAddressing {
  let space = 1 << 44
  let largestBlock = DMADomain.pageSize

  func makeFile(_ size: Int) throws(DeviceError) -> FileDescriptor {
    let file = FileDescriptor(owning: ixy_memfd("test", IXY_MEMFD_CLOEXEC))
    if ftruncate(file.number, size) != 0 { throw .gone(device: "memory") }
    return file
  }

  func place(_ file: borrowing FileDescriptor, size: Int) throws(DeviceError) -> UInt64 { 2 << 20 }
}
