import ArgumentParser
import Ixy

/// `ixy bind`: which driver has a card.
struct BindCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bind",
    abstract: "Gives a card to vfio-pci and a user, or back.",
    discussion: """
      Without an option the card goes to vfio-pci. It is refused when its interface is up, has an \
      address, carries a route or is in another network namespace, and when a process of ours drives it.
      """)

  @Argument(help: "The card's PCI address, as in 0000:03:00.0.")
  var card: PCIAddress

  @Option(help: "Who shall own the card's IOMMU group.")
  var user: String?

  @Flag(help: "Gives the card back to its kernel driver.")
  var restore = false

  @Flag(help: "Only takes the card from its kernel driver, for use as root without an IOMMU.")
  var release = false

  @Flag(help: "Takes the card even when the kernel uses it.")
  var force = false

  func validate() throws {
    if restore && release { throw ValidationError("Say --restore or --release, not both.") }
    if user != nil, restore || release {
      throw ValidationError(
        "--user gets a card that vfio-pci has: leave out --restore and --release.")
    }
  }

  func run() throws {
    let binding = CardBinding(card)
    var notes: [String] = []
    if restore {
      notes = try binding.restore()
    } else if release {
      try releaseFromKernel(card, force: force)
    } else {
      notes = try binding.bind(user: user, force: force)
    }
    notes.forEach(tell)
    output("\(card): \(SysfsCard(card).driver ?? "no driver")")
  }
}
