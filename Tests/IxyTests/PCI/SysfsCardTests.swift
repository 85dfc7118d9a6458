import Glibc
import Testing

@testable import Ixy

/// What is decided about a card before anything is touched.
@Suite struct SysfsCardTests {
  private let tree = MachineTree()

  @Test func `a card that is bound to vfio-pci is opened through VFIO`() throws {
    #expect(try tree.card("0000:03:00.0", driver: "vfio-pci", group: "7").way() == .vfio)
  }

  @Test(arguments: [nil, "ixgbe"])
  func `any other card is opened through sysfs`(driver: String?) throws {
    #expect(try tree.card("0000:03:00.0", driver: driver).way() == .sysfs)
  }

  @Test func `where an IOMMU is on the message has the command that binds the card`() {
    let card = tree.card("0000:03:00.0", driver: "ixgbe", group: "7")
    let text = message { _ = try card.way() }
    #expect(text.contains("an IOMMU stands before it"))
    #expect(text.contains("sudo ixy bind --user $USER 0000:03:00.0"))
  }

  @Test func `an IOMMU that passes addresses through does not matter`() throws {
    let card = tree.card("0000:03:00.0", group: "7")
    tree.file("sys/kernel/iommu_groups/7/type", "identity\n")
    #expect(try card.way() == .sysfs)
  }

  @Test func `an Intel device that is no network card is refused`() {
    let card = tree.card("0000:00:1f.3", device: "0xa170", kind: "0x040300")
    #expect(message { _ = try card.way() }.contains("it is no Ethernet card (class 040300)"))
  }

  @Test func `a network card without a driver of ours is refused`() {
    let card = tree.card("0000:03:00.0", device: "0x0001")
    #expect(message { _ = try card.way() }.contains("there is no driver for 8086:0001"))
  }

  @Test func `an address without a device is refused`() throws {
    let card = SysfsCard(try #require(PCIAddress("0000:09:00.0")), root: tree.root)
    #expect(message { _ = try card.way() }.contains("there is no PCI device at this address"))
  }

  @Test func `a group with a member that a kernel driver has is refused by the member's name`()
    throws
  {
    let card = tree.card("0000:03:00.0", driver: "vfio-pci", group: "7")
    tree.card("0000:03:00.1", driver: "ixgbe", group: "7")
    let group = try #require(card.group)
    let text = message { try group.requireViable(for: "0000:03:00.0") }
    #expect(text.contains("its IOMMU group 7 also holds 0000:03:00.1 (driver ixgbe)"))
    #expect(text.contains("sudo ixy bind 0000:03:00.1"))
  }

  @Test func `a member that is no network card is unbound by hand`() throws {
    let card = tree.card("0000:03:00.0", driver: "vfio-pci", group: "7")
    tree.card("0000:03:00.1", kind: "0x010601", driver: "ahci", group: "7")
    let group = try #require(card.group)
    let text = message { try group.requireViable(for: "0000:03:00.0") }
    #expect(text.contains("echo 0000:03:00.1 | sudo tee"))
  }

  @Test func `bridges and cards without driver may stay in a group`() throws {
    let card = tree.card("0000:03:00.0", driver: "vfio-pci", group: "7")
    tree.card("0000:00:1c.0", kind: "0x060400", driver: "pcieport", group: "7")
    tree.card("0000:03:00.1", group: "7")
    #expect(try #require(card.group).strangers.isEmpty)
  }

  @Test func `a card whose interface is up is not taken`() {
    let card = tree.card("0000:03:00.0", driver: "ixgbe")
    tree.interface("ixytest0", of: card, flags: "0x1003\n")
    #expect(message(card.refuseWhenInUse).contains("its interface ixytest0 is up"))
  }

  @Test func `a card whose interface carries a route is not taken`() {
    let card = tree.card("0000:03:00.0", driver: "ixgbe")
    tree.interface("ixytest0", of: card, flags: "0x1002\n")
    tree.file("proc/net/route", "Iface\tDestination\nixytest0\t00000000\t0100000A\n")
    #expect(message(card.refuseWhenInUse).contains("its interface ixytest0 carries a route"))
  }

  @Test func `a card whose interface is down and idle is taken`() throws {
    let card = tree.card("0000:03:00.0", driver: "ixgbe")
    tree.interface("ixytest0", of: card, flags: "0x1002\n")
    try card.refuseWhenInUse()
  }

  @Test func `a card whose interface is in another network namespace is not taken`() {
    let text = message(tree.card("0000:03:00.0", driver: "ixgbe").refuseWhenInUse)
    #expect(text.contains("the driver ixgbe has it"))
    #expect(text.contains("another network namespace"))
    #expect(text.contains("--force"))
  }

  @Test func `a virtio card whose interface is in another network namespace is not taken`() {
    let card = tree.card("0000:03:00.0", driver: "virtio-pci")
    tree.link(
      "sys/bus/pci/devices/0000:03:00.0/virtio0/driver", to: "../../../../virtio/drivers/virtio_net"
    )
    #expect(message(card.refuseWhenInUse).contains("the driver virtio_net has it"))
  }

  @Test func `a virtio card without a network driver is taken`() throws {
    let card = tree.card("0000:03:00.0", driver: "virtio-pci")
    tree.makeFolder("sys/bus/pci/devices/0000:03:00.0/virtio0")
    try card.refuseWhenInUse()
  }

  @Test(arguments: ["vfio-pci", "uio_pci_generic", "igb_uio", "pci-stub", nil])
  func `a card that no network driver has is taken`(driver: String?) throws {
    try tree.card("0000:03:00.0", driver: driver).refuseWhenInUse()
  }

  @Test func `a card that is locked is refused by its holder's number`() throws {
    let card = tree.card("0000:03:00.0")
    let lock = try card.lock()
    #expect(message { _ = try card.lock() }.contains("process \(getpid()) drives it"))
    _ = consume lock
    #expect(eventually { (try? card.lock()) != nil })
  }
}
