import Glibc

/// Says in one line what is in a frame, in the words of tcpdump (`tcpdump -nnS`).
///
/// One function a protocol, from the cable upwards: each reads its header and hands the rest on. A header
/// that is cut short ends the line with the name of its protocol: `[|tcp]`.
struct FrameDecoder {
  /// Whether the line begins with the Ethernet header and its VLAN tags (-e).
  var showsLink = false

  /// What a decoder could read, or that its header was cut short.
  static func cut(_ name: String, _ decode: () throws(Bytes.Truncated) -> String) -> String {
    do throws(Bytes.Truncated) { return try decode() } catch { return " [|\(name)]" }
  }

  // MARK: - Ethernet

  private static let types = [
    0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x8100: "802.1Q", 0x88A8: "802.1Q-QinQ",
  ]

  /// The line of one frame.
  func line(_ frame: some Collection<UInt8>) -> String {
    let frame = Bytes(frame)
    return Self.cut("ether") { () throws(Bytes.Truncated) in try ethernet(frame) }
  }

  private func ethernet(_ frame: Bytes) throws(Bytes.Truncated) -> String {
    let addresses = "\(try mac(frame, 6)) > \(try mac(frame, 0)), "
    var type = try frame.short(12)
    // Up to 1,500 it is no type but a length, as the first Ethernet standard had it.
    if type <= 1500 { return "\(addresses)802.3, length \(type)" }
    var rest = try frame.dropping(14)
    var link = "\(addresses)\(name(type)), length \(frame.count): "
    while type == 0x8100 || type == 0x88A8 {
      let tag = try rest.short(0)
      type = try rest.short(2)
      rest = try rest.dropping(4)
      let canBeDropped = tag & 0x1000 == 0 ? "" : ", DEI"
      link += "vlan \(tag & 0xFFF), p \(tag >> 13)\(canBeDropped), \(name(type)), "
    }
    let start = { showsLink ? link : $0 }
    switch type {
    case 0x0800:
      return start("IP ") + Self.cut("ip") { () throws(Bytes.Truncated) in try ipv4(rest) }
    case 0x86DD:
      return start("IP6 ") + Self.cut("ip6") { () throws(Bytes.Truncated) in try ipv6(rest) }
    case 0x0806:
      return start("ARP, ") + Self.cut("arp") { () throws(Bytes.Truncated) in try arp(rest) }
    default: return link
    }
  }

  private func name(_ type: Int) -> String {
    "ethertype \(Self.types[type] ?? "Unknown") (0x\(hex(type, 4)))"
  }

  // MARK: - ARP

  private func arp(_ packet: Bytes) throws(Bytes.Truncated) -> String {
    // Ethernet (1) addresses of 6 bytes for IPv4 (0x0800) addresses of 4.
    guard try packet.word(0) == 0x0001_0800, try packet.short(4) == 0x0604 else {
      return "Unknown Hardware (\(try packet.short(0)))"
    }
    let (sender, target) = (try address(packet, 14, 4), try address(packet, 24, 4))
    let end = ", length \(packet.count)"
    switch try packet.short(6) {
    case 1:
      let isGiven = try packet.slice(18, 6).contains { $0 != 0 }
      let known = isGiven ? " (\(try mac(packet, 18)))" : ""
      return "Request who-has \(target)\(known) tell \(sender)\(end)"
    case 2: return "Reply \(sender) is-at \(try mac(packet, 8))\(end)"
    case let operation: return "Unknown (\(operation))\(end)"
    }
  }

  // MARK: - IP

  private func ipv4(_ packet: Bytes) throws(Bytes.Truncated) -> String {
    let version = try packet.byte(0) >> 4
    if version != 4 { return "bad version \(version)" }
    let headerLength = try packet.byte(0) & 0xF * 4
    if headerLength < 20 { return "bad-hlen \(headerLength)" }
    let length = try packet.short(2)
    if length < headerLength { return "bad-len \(length)" }
    let number = try packet.byte(9)
    let fragment = try packet.short(6) & 0x1FFF
    let (source, destination) = (try address(packet, 12, 4), try address(packet, 16, 4))
    let payload = try packet.dropping(headerLength).prefix(length - headerLength)
    let missing = length - packet.count
    let start = missing > 0 ? "truncated-ip - \(missing) bytes missing! " : ""
    // Only the first fragment has the next header.
    if fragment > 0 { return "\(start)\(source) > \(destination): ip-proto-\(number)" }
    return start
      + transport(number, source, destination, payload, length: length - headerLength)
  }

  private func ipv6(_ packet: Bytes) throws(Bytes.Truncated) -> String {
    let version = try packet.byte(0) >> 4
    if version != 6 { return "bad version \(version)" }
    var next = try packet.byte(6)
    var length = try packet.short(4)
    let (source, destination) = (try address(packet, 8, 16), try address(packet, 24, 16))
    let missing = length + 40 - packet.count
    let start = missing > 0 ? "truncated-ip6 - \(missing) bytes missing!" : ""
    var payload = try packet.dropping(40).prefix(length)
    var text = ""
    // Headers between IP and the transport: hop-by-hop, routing, destination options; fragment.
    let extensions = [0: "HBH", 43: "RT", 60: "DSTOPT"]
    while let name = extensions[next] {
      let size = (try payload.byte(1) + 1) * 8
      next = try payload.byte(0)
      payload = try payload.dropping(size)
      length -= size
      text += "\(name) "
    }
    if next == 44 {
      let offset = try payload.short(2) & ~7
      text += "frag (\(offset)|\(length - 8)) "
      next = try payload.byte(0)
      payload = try payload.dropping(8)
      length -= 8
      if offset > 0 { return "\(start)\(source) > \(destination): \(text.dropLast())" }
    }
    return start + transport(next, source, destination, payload, length: length, after: text)
  }
}

// MARK: - Numbers as text

func hex(_ number: Int, _ digits: Int) -> String {
  let text = String(number, radix: 16)
  return String(repeating: "0", count: max(0, digits - text.count)) + text
}

/// The MAC address at an offset.
func mac(_ bytes: Bytes, _ offset: Int) throws(Bytes.Truncated) -> String {
  try bytes.slice(offset, 6).map { hex(Int($0), 2) }.joined(separator: ":")
}

/// The IPv4 (4 bytes) or IPv6 (16 bytes) address at an offset.
func address(_ bytes: Bytes, _ offset: Int, _ size: Int) throws(Bytes.Truncated) -> String {
  let raw = Array(try bytes.slice(offset, size))
  var text = [CChar](repeating: 0, count: 64)
  _ = unsafe inet_ntop(size == 4 ? AF_INET : AF_INET6, raw, &text, socklen_t(text.count))
  return String(decoding: text.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self)
}
