import Testing

@testable import Ixy

/// I/O ports, which the kernel reads and writes for us: legacy virtio cards have their registers there.
@Suite struct IOPortsTests {
  private let tree = MachineTree()

  private func ports() throws -> BAR {
    tree.file("resource0", "0123456789abcdef")
    return try SysfsDevice.ports(at: tree.root + "/resource0")
  }

  @Test func `the size of the ports is the size of their file`() throws {
    #expect(try ports().size == 16)
  }

  @Test(arguments: [(1, 0x34), (2, 0x3534), (4, 0x3736_3534)])
  func `a port is read with its width`(width: Int, value: UInt64) throws {
    #expect(try ports().read(4, width: width) == value)
  }

  @Test(arguments: [(1, "0123A56789abcdef"), (2, "0123AB6789abcdef"), (4, "0123ABCD89abcdef")])
  func `a port is written with its width`(width: Int, text: String) throws {
    try ports().write(0x4443_4241, to: 4, width: width)
    #expect(tree.text("resource0") == text)
  }

  @Test func `a port of a card that is gone reads as all ones`() throws {
    let ports = try ports()
    tree.file("resource0", "")
    #expect(ports.read(4, width: 2) == .max)
  }

  @Test func `a card has its ports behind a guardian, too`() {
    let kind: any PCIDevice.Type = GuardedDevice.self
    #expect(kind is any PortDevice.Type)
  }

  @Test func `a BAR of memory is no file of ports`() throws {
    let card = Card(bar: 0xFEB0_0004)
    #expect(try card.registers(0).size == 1)
  }

  @Test func `bit 0 of a BAR leads to the ports`() throws {
    let card = Card(bar: 0xC001)
    #expect(try card.registers(0).size == 2)
  }
}

/// A card with a BAR of one byte of memory, or two bytes of ports.
private final class Card: PortDevice {
  let name = "card"
  private let value: UInt32

  init(bar: UInt32) { value = bar }

  func bar(_ index: Int) -> BAR { ForwardedBAR(Nothing(), size: 1) }
  func ports(_ index: Int) -> BAR { ForwardedBAR(Nothing(), size: 2) }
  func readConfig(_ offset: Int, width: Int) -> UInt32 { offset == 0x10 ? value : 0 }
  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {}
  func attach(to domain: DMADomain) {}
}

private final class Nothing: RegisterAccess {
  func read(_ offset: Int, width: Int) -> UInt64 { 0 }
  func write(_ value: UInt64, to offset: Int, width: Int) {}
}
