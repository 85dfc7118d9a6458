import Emulation
import Ixy

/// A card, its wire, and how its driver reaches it.
final class SoakPort {
  let model: NIC82599
  let wire: PacedWire
  let card: EmulatedDevice
  private var takenBefore: UInt64 = 0
  private var arrivedBefore: UInt64 = 0

  init(_ model: NIC82599, _ wire: PacedWire, _ card: EmulatedDevice) {
    (self.model, self.wire, self.card) = (model, wire, card)
  }

  /// Frames that the wire gave since the counts were taken, less those that came to it.
  var framesAhead: Int {
    let (given, came) = (
      wire.counts.sent - takenBefore, wire.counts.received + wire.lostOnCable - arrivedBefore
    )
    return Int(given) - Int(came)
  }

  /// What card and wire have counted since the last call, which clears it; the gate must be closed.
  func takeCounts() -> CardCounts {
    let (taken, arrived) = (wire.counts.sent, wire.counts.received + wire.lostOnCable)
    defer { (takenBefore, arrivedBefore) = (taken, arrived) }
    return CardCounts(
      received: model.read(bar: 0, 0x04074, width: 4),
      dropped: model.read(bar: 0, 0x03FA0, width: 4) + model.read(bar: 0, 0x01430, width: 4),
      transmitted: model.read(bar: 0, 0x04080, width: 4), taken: taken - takenBefore,
      arrived: arrived - arrivedBefore)
  }
}

/// One session's counts of a card and its wire.
struct CardCounts {
  /// GPRC: good frames, those without a descriptor included.
  var received: UInt64 = 0
  /// MPC and QPRDC: of these, lost for want of a descriptor; without those that the driver has read before.
  var dropped: UInt64 = 0
  /// GPTC.
  var transmitted: UInt64 = 0
  /// Frames that the wire gave to the card.
  var taken: UInt64 = 0
  /// Frames that the card put on its wire.
  var arrived: UInt64 = 0
}

/// Where the frames of all sessions went: each is in one of these places, or something is wrong.
struct Account {
  /// By the card, for want of a descriptor, and counted.
  var dropped: UInt64 = 0
  /// In a receive ring when it was closed or its card was reset.
  var inReceiveRings: UInt64 = 0
  /// By the forwarder, because the transmit ring was full.
  var byForwarder: UInt64 = 0
  /// In a transmit ring when it was closed or its card was reset.
  var inTransmitRings: UInt64 = 0
  /// What does not add up.
  var errors: [String] = []

  var lost: UInt64 { dropped + inReceiveRings + byForwarder + inTransmitRings }

  /// Adds one direction of one session: from the wire of `source` to that of `target`.
  mutating func add(
    from source: CardCounts, _ receiver: Statistics, to target: CardCounts,
    _ transmitter: Statistics, byForwarder: UInt64, ringEntries: UInt64
  ) {
    let dropped = receiver.receiveDropped + source.dropped
    let left = source.received &- dropped &- receiver.receivedPackets
    let unsent = transmitter.transmittedPackets &- target.transmitted
    check(source.taken == source.received, "wire gave \(source.taken), card has \(source.received)")
    check(left <= ringEntries, "\(left) frames left in a receive ring of \(ringEntries)")
    check(receiver.receiveErrors == 0, "\(receiver.receiveErrors) damaged frames")
    check(
      receiver.receivedPackets == transmitter.transmittedPackets + byForwarder,
      "received \(receiver.receivedPackets), transmitted \(transmitter.transmittedPackets)")
    check(unsent <= ringEntries, "\(unsent) frames left in a transmit ring of \(ringEntries)")
    check(
      target.transmitted == target.arrived, "sent \(target.transmitted), came \(target.arrived)")
    self.dropped += dropped
    inReceiveRings += left
    self.byForwarder += byForwarder
    inTransmitRings += unsent
  }

  mutating func check(_ holds: Bool, _ message: @autoclosure () -> String) {
    if !holds, errors.count < 20 { errors.append(message()) }
  }
}
