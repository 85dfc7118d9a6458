/// What comes behind an IP header.
extension FrameDecoder {
  /// Source, destination and the rest of the line, by the number of the protocol.
  ///
  /// `payload` is what was captured of `length` bytes; `extensions` is what stood between IP and it.
  func transport(
    _ number: Int, _ source: String, _ destination: String, _ payload: Bytes, length: Int,
    after extensions: String = ""
  ) -> String {
    let hosts = "\(source) > \(destination): \(extensions)"
    switch number {
    case 1:
      return hosts + Self.cut("icmp") { () throws(Bytes.Truncated) in try icmp(payload, length) }
    case 58:
      return hosts + "ICMP6, "
        + Self.cut("icmp6") { () throws(Bytes.Truncated) in try icmp6(payload, length) }
    case 6, 17:
      let name = number == 6 ? "tcp" : "udp"
      guard let from = try? payload.short(0), let to = try? payload.short(2) else {
        return "\(hosts) [|\(name)]"
      }
      let ports =
        extensions.isEmpty
        ? "\(source).\(from) > \(destination).\(to): " : "\(hosts)\(from) > \(to): "
      return ports
        + Self.cut(name) { () throws(Bytes.Truncated) in
          number == 6 ? try tcp(payload, length) : try udp(payload, length)
        }
    default: return "\(hosts) ip-proto-\(number) \(length)"
    }
  }

  private func udp(_ packet: Bytes, _ length: Int) throws(Bytes.Truncated) -> String {
    let claimed = try packet.short(4) - 8
    if claimed < 0 { return "truncated-udplength \(claimed + 8)" }
    return claimed > length - 8
      ? "UDP, bad length \(claimed) > \(length - 8)" : "UDP, length \(claimed)"
  }

  // MARK: - TCP

  private static let flags = ["F", "S", "R", "P", ".", "U", "E", "W"]

  private func tcp(_ packet: Bytes, _ length: Int) throws(Bytes.Truncated) -> String {
    let headerLength = try packet.byte(12) >> 4 * 4
    let data = length - headerLength
    if headerLength < 20 {
      return " tcp \(data) [bad hdr length \(headerLength) - too short, < 20]"
    }
    if data < 0 { return " tcp \(data) [bad hdr length \(headerLength) - too long, > \(length)]" }
    let bits = try packet.byte(13)
    let names = Self.flags.indices.filter { bits >> $0 & 1 == 1 }.map { Self.flags[$0] }.joined()
    var parts = ["Flags [\(names.isEmpty ? "none" : names)]"]
    let sequence = try packet.word(4)
    // FIN, SYN and RST take a number of their own.
    if data > 0 || bits & 0b111 != 0 {
      let end = data > 0 ? ":\((sequence + data) & 0xFFFF_FFFF)" : ""
      parts.append("seq \(sequence)\(end)")
    }
    if bits & 0x10 != 0 { parts.append("ack \(try packet.word(8))") }
    parts.append("win \(try packet.short(14))")
    if bits & 0x20 != 0 { parts.append("urg \(try packet.short(18))") }
    let options = try packet.dropping(20).prefix(headerLength - 20)
    if options.count > 0 { parts.append("options [\(tcpOptions(options))]") }
    return parts.joined(separator: ", ") + ", length \(data)"
  }

  private func tcpOptions(_ bytes: Bytes) -> String {
    var words: [String] = []
    var rest = bytes
    do throws(Bytes.Truncated) {
      while rest.count > 0 {
        let kind = try rest.byte(0)
        // The end and the filler are one byte; all others say how long they are.
        if kind <= 1 {
          words.append(kind == 0 ? "eol" : "nop")
          if kind == 0 { break }
          rest = try rest.dropping(1)
          continue
        }
        let size = try rest.byte(1)
        if size < 2 { throw Bytes.Truncated() }
        words.append(try tcpOption(kind, try rest.dropping(2).prefix(size - 2)))
        rest = try rest.dropping(size)
      }
    } catch { words.append("[bad opt]") }
    return words.joined(separator: ",")
  }

  private func tcpOption(_ kind: Int, _ value: Bytes) throws(Bytes.Truncated) -> String {
    switch kind {
    case 2: return "mss \(try value.short(0))"
    case 3: return "wscale \(try value.byte(0))"
    case 4: return "sackOK"
    case 5:
      var text = "sack \(value.count / 8) "
      for i in 0..<value.count / 8 {
        text += "{\(try value.word(8 * i)):\(try value.word(8 * i + 4))}"
      }
      return text
    case 8: return "TS val \(try value.word(0)) ecr \(try value.word(4))"
    default: return "unknown-\(kind) 0x" + value.rest.map { hex(Int($0), 2) }.joined()
    }
  }

  // MARK: - ICMP

  private func icmp(_ packet: Bytes, _ length: Int) throws(Bytes.Truncated) -> String {
    let (type, code) = (try packet.byte(0), try packet.byte(1))
    let text: String
    switch type {
    case 0, 8:
      let name = type == 8 ? "request" : "reply"
      text = "echo \(name), id \(try packet.short(4)), seq \(try packet.short(6))"
    case 3: text = try unreachable(code, packet, about: try packet.dropping(8))
    case 5:
      let kinds = ["net", "host", "net and TOS", "host and TOS"]
      let target = try address(packet, 24, 4)
      let what = code < kinds.count ? "to \(kinds[code])" : "#\(code)"
      text = "redirect \(target) \(what) \(try address(packet, 4, 4))"
    case 11: text = code == 0 ? "time exceeded in-transit" : "ip reassembly time exceeded"
    default: text = "type-#\(type)"
    }
    return "ICMP \(text), length \(length)"
  }

  /// Why a packet did not get there; the start of that packet is in the message.
  private func unreachable(_ code: Int, _ message: Bytes, about packet: Bytes)
    throws(Bytes.Truncated) -> String
  {
    let target = try address(packet, 16, 4)
    switch code {
    case 0: return "net \(target) unreachable"
    case 1: return "host \(target) unreachable"
    case 2: return "\(target) protocol \(try packet.byte(9)) unreachable"
    case 3:
      let port = try packet.short(try packet.byte(0) & 0xF * 4 + 2)
      let names = [6: "tcp", 17: "udp"]
      let number = try packet.byte(9)
      let name = names[number] ?? "protocol \(number)"
      return "\(target) \(name) port \(port) unreachable"
    case 4: return "\(target) unreachable - need to frag (mtu \(try message.short(6)))"
    case 13: return "host \(target) unreachable - admin prohibited filter"
    default: return "\(target) unreachable - #\(code)"
    }
  }

  private func icmp6(_ packet: Bytes, _ length: Int) throws(Bytes.Truncated) -> String {
    let text: String
    switch try packet.byte(0) {
    case 1:
      // The packet that did not get there: its address and, of UDP and TCP, its port.
      let target = try address(packet, 8 + 24, 16)
      let names = [6: "tcp", 17: "udp"]
      if try packet.byte(1) == 4, let name = names[try packet.byte(8 + 6)] {
        let port = try packet.short(8 + 40 + 2)
        text = "destination unreachable, unreachable port, \(target) \(name) port \(port)"
      } else {
        text = "destination unreachable, unreachable #\(try packet.byte(1)) \(target)"
      }
    case 2: text = "packet too big, mtu \(try packet.word(4))"
    case 3: text = "time exceeded in-transit for \(try address(packet, 8 + 24, 16))"
    case 128, 129:
      let name = try packet.byte(0) == 128 ? "request" : "reply"
      text = "echo \(name), id \(try packet.short(4)), seq \(try packet.short(6))"
    case 133: text = "router solicitation"
    case 134: text = "router advertisement"
    case 135: text = "neighbor solicitation, who has \(try address(packet, 8, 16))"
    case 136: text = "neighbor advertisement, tgt is \(try address(packet, 8, 16))"
    case 143: text = "multicast listener report v2, \(try packet.short(6)) group record(s)"
    case let type: text = "type-#\(type)"
    }
    return "\(text), length \(length)"
  }
}
