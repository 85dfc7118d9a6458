import Glibc
import Testing

@testable import Ixy

/// What VFIO's answers mean, and which message comes when a card cannot be opened.
@Suite struct VFIOTests {
  private let tree = MachineTree()

  /// Numbers as the kernel lays them out: 32 bits each, or 64.
  private static func bytes(_ words: [UInt32]) -> [UInt8] {
    words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt32(8 * $0)) } }
  }

  /// VFIO_IOMMU_GET_INFO with one chain: a capability that we skip, then ranges below 4 GiB.
  private static func ranges(_ pairs: [(UInt32, UInt32)], count: Int? = nil) -> VFIOInfo {
    var words: [UInt32] = [0, 3, 0x1000, 0, 24, 0]
    words += [3 | 1 << 16, 40, 99, 0]
    words += [1 | 1 << 16, 0, UInt32(count ?? pairs.count), 0]
    for (first, last) in pairs { words += [first, 0, last, 0] }
    return VFIOInfo(bytes(words))
  }

  @Test func `the IOMMU's ranges are taken in order`() {
    let ranges = VFIOContainer.ranges(Self.ranges([(0xFEF0_0000, 0xFFFF_FFFF), (0, 0xFEDF_FFFF)]))
    #expect(ranges == [0...0xFEDF_FFFF, 0xFEF0_0000...0xFFFF_FFFF])
  }

  @Test func `without ranges 39 bits are assumed`() {
    #expect(
      VFIOContainer.ranges(VFIOInfo(Self.bytes([20, 1, 0x1000, 0, 0, 0]))) == [0...(1 << 39) - 1])
  }

  @Test func `a list that claims more entries than it has ends where the bytes end`() {
    #expect(VFIOContainer.ranges(Self.ranges([(0, 1)], count: 1 << 30)) == [0...1])
  }

  @Test func `a range that ends before it begins is left out`() {
    #expect(VFIOContainer.ranges(Self.ranges([(5, 4), (8, 9)])) == [8...9])
  }

  @Test func `a chain of capabilities that goes in circles ends`() {
    let info = VFIOInfo(Self.bytes([0, 3, 0, 0, 24, 0, 3 | 1 << 16, 24, 0, 0]))
    #expect(info.pairs(ofCapability: 1, from: 24) == nil)
  }

  /// VFIO_DEVICE_GET_REGION_INFO: flags, then size, then sparse areas.
  private static func region(
    flags: UInt32, size: UInt64, areas: [(UInt32, UInt32)] = []
  ) -> VFIOInfo {
    var words: [UInt32] = [0, flags, 0, 32]
    words += [UInt32(truncatingIfNeeded: size), UInt32(size >> 32), 0x1000, 0]
    words += [1 | 1 << 16, 0, UInt32(areas.count), 0]
    for (start, count) in areas { words += [start, 0, count, 0] }
    return VFIOInfo(bytes(words))
  }

  @Test func `a BAR that can be mapped is mapped as a whole`() {
    #expect(VFIORegion(Self.region(flags: 7, size: 0x20000))?.areas == [0..<0x20000])
  }

  @Test func `a BAR that cannot be mapped is forwarded`() {
    #expect(VFIORegion(Self.region(flags: 3, size: 32))?.areas == [])
  }

  @Test func `of a BAR with areas only whole pages are mapped`() {
    let info = Self.region(flags: 15, size: 0x4000, areas: [(0x800, 0x1800), (0x3000, 0x1000)])
    #expect(VFIORegion(info)?.areas == [0x1000..<0x2000, 0x3000..<0x4000])
  }

  @Test func `areas outside their BAR are not mapped`() {
    let info = Self.region(flags: 15, size: 0x2000, areas: [(0x1000, 0x2000), (0x8000, 0x1000)])
    #expect(VFIORegion(info)?.areas == [])
  }

  @Test(arguments: [UInt64.max, 1 << 41])
  func `a size that no card has is refused`(size: UInt64) {
    #expect(VFIORegion(Self.region(flags: 7, size: size)) == nil)
  }

  private func open(_ card: SysfsCard, unprotected: Bool = false) -> String {
    message { _ = try VFIODevice(card, DMADomain(), allowsUnprotected: unprotected) }
  }

  @Test func `a card that is not bound has the command that binds it`() {
    let text = open(tree.card("0000:03:00.0", driver: "ixgbe", group: "7"))
    #expect(text.contains("the driver ixgbe has it"))
    #expect(text.contains("sudo ixy bind 0000:03:00.0"))
  }

  @Test func `vfio that is not loaded has the command that loads it`() {
    let text = open(tree.card("0000:03:00.0", driver: "vfio-pci", group: "7"))
    #expect(text.contains("/dev/vfio/vfio"))
    #expect(text.contains("sudo modprobe vfio-pci"))
  }

  @Test func `a card behind no IOMMU is refused unless asked for`() {
    let card = tree.card("0000:03:00.0", driver: "vfio-pci", group: "7")
    tree.file("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n")
    #expect(open(card).contains("no IOMMU protects the memory"))
    #expect(open(card).contains("--without-iommu"))
    #expect(!open(card, unprotected: true).contains("no IOMMU protects the memory"))
  }

  @Test func `a low limit of locked memory has the command that raises it`() {
    let text = mapError(ENOMEM, iova: 0x20_0000, size: 2 << 20).description
    #expect(text.contains("Map 2048 KiB at IOVA 0x200000"))
    #expect(text.contains("ulimit -l") || text.contains("no memory left"))
  }

  @Test func `an address that the IOMMU cannot reach has its own message`() {
    let text = mapError(EINVAL, iova: 1 << 40, size: 2 << 20).description
    #expect(text.contains("Map 2048 KiB at IOVA 0x10000000000"))
    #expect(text.contains("The IOMMU cannot reach this address"))
    #expect(text.contains("bind all of them"))
  }

  @Test func `too many mappings have the limit that is to be raised`() {
    #expect(mapError(ENOSPC, iova: 0, size: 4096).description.contains("dma_entry_limit"))
  }

  @Test func `each error of a group's node has its own advice`() {
    func advice(_ code: Int32, isProtected: Bool = true) -> String {
      VFIOAdvice.group(code, isProtected: isProtected, card: "0000:03:00.0")
    }
    #expect(advice(EACCES).contains("sudo ixy bind --user $USER 0000:03:00.0"))
    #expect(advice(EBUSY).contains("Another process has a card of this group"))
    #expect(advice(EPERM, isProtected: false).contains("takes root"))
    #expect(advice(ENOENT).contains("sudo ixy bind 0000:03:00.0"))
  }

  @Test func `a container for root alone has the command that opens it to all`() {
    let path = "/dev/vfio/vfio"
    #expect(VFIOAdvice.container(EACCES, path).contains("sudo chmod 666 /dev/vfio/vfio"))
    #expect(VFIOAdvice.container(ENOENT, path).contains("sudo modprobe vfio-pci"))
  }

  @Test func `an IOMMU that cannot remap interrupts has the switch that allows it`() {
    #expect(VFIOAdvice.iommu(EPERM, isProtected: true).contains("allow_unsafe_interrupts"))
    #expect(VFIOAdvice.iommu(EINVAL, isProtected: true).isEmpty)
  }
}
