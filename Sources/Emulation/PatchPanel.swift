import Glibc
import Ixy

/// Where the cables of one process's emulated cards are plugged in.
public final class PatchPanel {
  /// Ends of links whose other end nobody has taken yet, with the card that has this one.
  private var waiting: [String: (end: LinkWire, card: String)] = [:]
  private var linked: Set<String> = []
  private var plugged: UInt64 = 0

  /// A panel without cables.
  public init() {}

  /// Plugs in one more card.
  ///
  /// - Returns: Its wire, and its own address: the one that was asked for, or one that no other card has.
  /// - Throws: `DeviceError` when the wire cannot be had.
  public func plugIn(_ card: CardDescription) throws(DeviceError)
    -> (wire: any Wire, macAddress: MACAddress)
  {
    plugged += 1
    let address = card.macAddress ?? Self.address(number: plugged)
    let wire = try wire(for: card, address)
    return (card.faults == .init() ? wire : LossyWire(wire, card.faults), address)
  }

  /// Throws when one end of a link is in no card; for when all cards are plugged in.
  public func checkLinks() throws(DeviceError) {
    guard let (peer, (_, card)) = waiting.min(by: { $0.key < $1.key }) else { return }
    throw .refused(
      "Link \(card)", found: "no other card has peer=\(peer)",
      advice: "Give two cards the same peer.")
  }

  private func wire(for card: CardDescription, _ address: MACAddress) throws(DeviceError)
    -> any Wire
  {
    switch card.wire {
    case .link(let peer): return try link(peer, card.text)
    case .tap(let name): return try TapWire(name: name)
    case .pcap(let input, let output): return try PcapWire(input: input, output: output)
    case .datagram(let local, let remote): return try DatagramWire(local: local, remote: remote)
    case .generator(let settings):
      let stream = UInt16.random(in: 1 ... .max)
      return GeneratorWire(settings, destination: address, stream: stream)
    case .sink: return SinkWire()
    case .loop: return LoopWire()
    }
  }

  private func link(_ peer: String, _ card: String) throws(DeviceError) -> LinkWire {
    if let other = waiting.removeValue(forKey: peer) {
      linked.insert(peer)
      return other.end
    }
    if linked.contains(peer) {
      throw .refused(
        "Link \(card)", found: "two cards have peer=\(peer) already",
        advice: "A cable has two ends; give this card another peer.")
    }
    let (here, there) = LinkWire.pair()
    waiting[peer] = (there, card)
    return here
  }

  /// A locally administered address.
  ///
  /// The process is in it, because cards of several processes may be on one network.
  private static func address(number: UInt64) -> MACAddress {
    let process = UInt64(UInt32(bitPattern: getpid()))
    return MACAddress(bits: 0x02 << 40 | (process & 0xFF_FFFF) << 16 | (number & 0xFFFF))
  }
}
