import Glibc
import Testing

@testable import Ixy

/// Giving a card to vfio-pci; that it works is shown in a guest.
@Suite struct BindTests {
  private let tree = MachineTree()
  private let override = "sys/bus/pci/devices/0000:03:00.0/driver_override"

  private func bind(_ card: SysfsCard, user: String? = nil, force: Bool = false) -> String {
    message { _ = try CardBinding(card).bind(user: user, force: force) }
  }

  @Test func `without an IOMMU the message says how to switch it on`() {
    #expect(bind(tree.card("0000:03:00.0", driver: "ixgbe")).contains("intel_iommu=on"))
  }

  @Test func `without vfio-pci the message says how to load it`() {
    let card = tree.card("0000:03:00.0", driver: "ixgbe", group: "7")
    #expect(bind(card).contains("sudo modprobe vfio-pci"))
  }

  @Test func `a card in use is left alone`() {
    let card = tree.card("0000:03:00.0", driver: "ixgbe", group: "7")
    tree.makeFolder("sys/bus/pci/drivers/vfio-pci")
    tree.interface("ixytest0", of: card, flags: "0x1003\n")
    #expect(bind(card).contains("its interface ixytest0 is up"))
    #expect(tree.text(override) == "(null)\n")
    #expect(tree.text("sys/bus/pci/drivers/ixgbe/unbind") == "")
  }

  @Test func `a card whose interface is out of sight is bound by force alone`() {
    let card = tree.card("0000:03:00.0", driver: "ixgbe", group: "7")
    tree.makeFolder("sys/bus/pci/drivers/vfio-pci")
    #expect(bind(card).contains("another network namespace"))
    #expect(tree.text(override) == "(null)\n")
    #expect(bind(card, force: true).contains("it did not take it"))
    #expect(tree.text("sys/bus/pci/drivers/ixgbe/unbind") == "0000:03:00.0")
  }

  @Test func `a card that a process of ours drives is left alone`() throws {
    let card = tree.card("0000:03:00.0", group: "7")
    tree.makeFolder("sys/bus/pci/drivers/vfio-pci")
    let lock = try card.lock()
    #expect(bind(card, force: true).contains("process \(getpid()) drives it"))
    #expect(tree.text(override) == "(null)\n")
    _ = consume lock
  }

  @Test func `a user that does not exist is refused before anything is touched`() {
    let card = tree.card("0000:03:00.0", group: "7")
    tree.makeFolder("sys/bus/pci/drivers/vfio-pci")
    #expect(bind(card, user: "nobody-of-that-name").contains("there is no such user"))
    #expect(tree.text(override) == "(null)\n")
  }

  @Test func `a card that vfio-pci does not take is offered to its old driver again`() {
    let card = tree.card("0000:03:00.0", driver: "ixgbe", group: "7")
    tree.interface("ixytest0", of: card, flags: "0x1002\n")
    tree.makeFolder("sys/bus/pci/drivers/vfio-pci")
    // Here nothing moves a card: as if vfio-pci had refused.
    #expect(bind(card).contains("it did not take it"))
    #expect(tree.text("sys/bus/pci/drivers/ixgbe/unbind") == "0000:03:00.0")
    #expect(tree.text(override)?.first == "\n")
    #expect(tree.text("sys/bus/pci/drivers_probe") == "0000:03:00.0")
  }

  @Test func `what a user still lacks is listed`() throws {
    let card = tree.card("0000:03:00.0", driver: "vfio-pci", group: "7")
    tree.card("0000:03:00.1", driver: "ixgbe", group: "7")
    tree.file("dev/vfio/7", "")
    tree.file("dev/vfio/vfio", "")
    chmod("\(tree.root)/dev/vfio/vfio", 0o600)
    let notes = CardBinding(card).missing(for: 4711).joined(separator: "\n")
    #expect(notes.contains("also holds 0000:03:00.1"))
    #expect(notes.contains("sudo chmod 666"))
    #expect(notes.contains("sudo ixy bind --user 4711 0000:03:00.0"))
  }

  @Test func `a card that a process of ours drives is not restored`() throws {
    let card = tree.card("0000:03:00.0", driver: "vfio-pci", group: "7")
    let lock = try card.lock()
    #expect(message { _ = try CardBinding(card).restore() }.contains("drives it"))
    #expect(tree.text("sys/bus/pci/drivers/vfio-pci/unbind") == "")
    _ = consume lock
  }

  @Test func `restoring takes the card from vfio-pci and says when no driver takes it`() throws {
    let card = tree.card("0000:03:00.0", driver: "vfio-pci", group: "7")
    // The kernel removes the link as soon as the card is unbound; here it is gone before.
    unlink("\(card.directory)/driver")
    let notes = try CardBinding(card).restore()
    #expect(tree.text("sys/bus/pci/drivers_probe") == "0000:03:00.0")
    #expect(notes.joined().contains("No kernel driver took 0000:03:00.0"))
  }
}
