/// What the card itself has counted since it was opened: good frames and their bytes.
///
/// Unlike `statistics()`, these are not what reached a queue: a good frame that found no descriptor counts, too.
public struct IxgbeCounters: Equatable, Sendable {
  /// GPRC: good packets received.
  public var goodPacketsReceived: UInt64
  /// GORC: their octets, without FCS, which is stripped before.
  public var goodOctetsReceived: UInt64
  /// GPTC: good packets transmitted.
  public var goodPacketsTransmitted: UInt64
  /// GOTC: their octets, with FCS.
  public var goodOctetsTransmitted: UInt64
  /// MPC: missed, because the packet buffer was full.
  public var missedPackets: UInt64
}

extension IxgbeDevice {
  /// Reads and adds up the card's counters.
  ///
  /// Its octet counters have 36 bits and wrap after 55 seconds at line rate, its packet counters 32 and wrap after
  /// five minutes: read them more often.
  public func hardwareCounters() -> IxgbeCounters {
    IxgbeCounters(
      goodPacketsReceived: count(0x04074), goodOctetsReceived: octets(0x04088),
      goodPacketsTransmitted: count(0x04080), goodOctetsTransmitted: octets(0x04090),
      missedPackets: (0..<8).reduce(0) { $0 + count(0x03FA0 + 4 * $1) })
  }

  /// A counter of 36 bits: the low word first, then the four bits above it; each reading clears its own.
  private func octets(_ counter: Int) -> UInt64 {
    let low = bar.read(counter, width: 4)
    let high = bar.read(counter + 4, width: 4)
    // All ones in the high word is no count: the card is gone.
    let new = high > 0xF ? 0 : high << 32 | low
    return hardwareCounts.add(new, to: counter)
  }
}
