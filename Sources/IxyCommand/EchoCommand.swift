import ArgumentParser
import Ixy

/// The command `ixy echo CARD --ip 10.0.0.2`.
struct EchoCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "echo",
    abstract: "Answers ARP and ping for an address.")

  @Argument(help: "A card; ixy --help has the forms.") var card: CardName
  @Option(help: "The IPv4 address to answer for.") var ip: IPv4Address
  @Option(help: "Ends after this time, as in 5s.") var duration: Duration?
  @OptionGroup var interruptOptions: InterruptOptions
  @OptionGroup var metricsOptions: MetricsOptions
  @OptionGroup var cardOptions: CardOptions

  func run() throws {
    StopSignal.install()
    let bench = CardBench(cardOptions)
    let device = try bench.open([card], DeviceConfiguration())[0]
    let host = EchoHost(mac: device.macAddress, ip: ip)
    let port = bench.ports[0]
    let pool = try Mempool(domain: bench.domain, buffers: 4096)
    try bench.waitForLinks()
    var limits = Limits(duration: duration)
    let reporter = Reporter([port], json: cardOptions.json)
    try reporter.serveMetrics(at: metricsOptions.metrics)
    var watch = try CardWatch(interruptOptions.interrupts, bench)
    var receiver = try device.receiveQueue(0, mempool: pool)
    var transmitter = try device.transmitQueue(0)
    var requests = PacketBatch(capacity: 32)
    try poll(&watch, &limits, reporter) { _ in
      let received = try receiver.receive(into: &requests, max: 32)
      while var packet = requests.popFirst() {
        guard host.answer(&packet) else { continue }
        // The answer is in the request's own buffer; where the ring is full it is dropped.
        if try transmitter.transmit(packet) != nil { port.drops.add(1) }
      }
      return received
    }
    try drain { try transmitter.reclaim() }
    reporter.finish()
    try bench.close()
  }
}

/// An IPv4 address that a host can have.
struct IPv4Address: TypedValue {
  let bytes: [UInt8]

  init(typed text: String) throws {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    // UInt8's own parser takes a sign.
    bytes = parts.compactMap { $0.first?.isNumber == true ? UInt8($0) : nil }
    // 0 is "this network", 127 the loopback, and from 224 on are multicast and broadcast.
    guard parts.count == 4, bytes.count == 4, 1...223 ~= bytes[0], bytes[0] != 127 else {
      throw ValidationError("give the IPv4 address of a host, as in 10.0.0.2.")
    }
  }
}

/// A host that knows ARP and ping.
struct EchoHost {
  let mac: MACAddress
  let ip: IPv4Address

  /// Turns a request for this host into its answer, in place; false when it is none.
  ///
  /// Nothing in a frame is believed before it is checked: every length, and that it is for us.
  func answer(_ packet: inout Packet) -> Bool {
    guard packet.count >= 42, isForUs(packet) else { return false }
    switch UInt16(packet[12]) << 8 | UInt16(packet[13]) {
    case 0x0806: return answerARP(&packet)
    case 0x0800: return answerPing(&packet)
    default: return false
    }
  }

  private func isForUs(_ packet: borrowing Packet) -> Bool {
    if (0..<6).allSatisfy({ packet[$0] == mac[$0] }) { return true }
    return (0..<6).allSatisfy { packet[$0] == 0xFF }
  }

  /// Answers who has our address (ARP, RFC 826).
  private func answerARP(_ packet: inout Packet) -> Bool {
    // Ethernet, IPv4, addresses of 6 and 4 bytes, a request.
    let request: [UInt8] = [0, 1, 8, 0, 6, 4, 0, 1]
    guard request.indices.allSatisfy({ packet[14 + $0] == request[$0] }),
      (0..<4).allSatisfy({ packet[38 + $0] == ip.bytes[$0] })
    else { return false }
    packet[21] = 2  // a reply
    // The asker becomes the target, and we the sender.
    for i in 0..<10 { packet[32 + i] = packet[22 + i] }
    for i in 0..<6 { packet[22 + i] = mac[i] }
    for i in 0..<4 { packet[28 + i] = ip.bytes[i] }
    sendBack(&packet)
    return true
  }

  /// Makes an ICMP echo request the reply (RFC 792).
  private func answerPing(_ packet: inout Packet) -> Bool {
    let headerLength = Int(packet[14] & 0xF) * 4
    let length = Int(packet[16]) << 8 | Int(packet[17])
    let icmp = 14 + headerLength
    let isFragment = packet[20] & 0x3F != 0 || packet[21] != 0
    guard packet[14] >> 4 == 4, headerLength >= 20, length >= headerLength + 8,
      packet.count >= 14 + length, !isFragment, packet[23] == 1, packet[icmp] == 8,
      packet[icmp + 1] == 0, (0..<4).allSatisfy({ packet[30 + $0] == ip.bytes[$0] })
    else { return false }
    // Swapping the addresses leaves the header's checksum as it is.
    for i in 0..<4 {
      packet[30 + i] = packet[26 + i]
      packet[26 + i] = ip.bytes[i]
    }
    packet[icmp] = 0  // an echo reply
    // RFC 1624: the first word went from 0x0800 to 0, so its complement sum goes up by 0x0800.
    let sum = UInt32(packet[icmp + 2]) << 8 + UInt32(packet[icmp + 3]) + 0x0800
    let folded = sum & 0xFFFF + sum >> 16
    packet[icmp + 2] = UInt8(folded >> 8)
    packet[icmp + 3] = UInt8(folded & 0xFF)
    sendBack(&packet)
    return true
  }

  /// To whom it came from.
  private func sendBack(_ packet: inout Packet) {
    for i in 0..<6 {
      packet[i] = packet[6 + i]
      packet[6 + i] = mac[i]
    }
  }
}
