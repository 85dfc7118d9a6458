import Foundation
import Testing

@Suite struct InputTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  @Test(arguments: [
    (["fwd"], 64, "Missing expected argument"),
    (
      ["fwd", "nonsense", "emu:82599,wire=sink"], 64,
      "'nonsense' is invalid for '<first>': it is no card"
    ),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--batch", "0"], 64, "--batch"),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--batch", "513"], 64, "--batch"),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--mtu", "67"], 64, "--mtu"),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--mtu", "9583"], 64, "--mtu"),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--count", "-1"], 64, "--count"),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--duration", "soon"], 64, "as in 5s"),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--wrong"], 64, "--wrong"),
    (["fwd", "emu:82599,wire=sink", "emu:12345,wire=sink"], 64, "There are 82599"),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=string"], 64, "There are dgram"),
    (["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink,size=3"], 64, "size"),
    (["fwd", "emu:82599,wire=link,peer=a", "emu:82599,wire=link,peer=b"], 1, "peer"),
    (["fwd", "emu:82599,wire=pcap,in=/does/not/exist", "emu:82599,wire=sink"], 1, "/does/not"),
    (["fwd", "emu:82599,wire=pcap,in=/etc/passwd", "emu:82599,wire=sink"], 1, "/etc/passwd"),
    (["fwd", "emu:82599,wire=sink", "vfio-user:/does/not/exist"], 1, "/does/not/exist"),
    (["fwd", "ffff:ff:1f.7", "emu:82599,wire=sink"], 1, "ffff:ff:1f.7"),
    (["pktgen", "emu:82599,wire=sink", "--size", "59"], 64, "--size"),
    (["pktgen", "emu:82599,wire=sink", "--size", "1515"], 64, "--size"),
    (["pktgen", "emu:82599,wire=sink", "--rate", "fast"], 64, "as in 20000, 1Mpps"),
    (["pktgen", "emu:82599,wire=sink", "--size", "60-1515"], 64, "--size"),
    (["pktgen", "emu:82599,wire=sink", "--size", "big"], 64, "as in 60, 60-1514 or imix"),
    (["pktgen", "emu:82599,wire=sink", "--size", "60", "--ipv6"], 64, "at least 80"),
    (["pktgen", "emu:82599,wire=sink", "--size", "80-90", "--ipv6", "--vlan", "1"], 64, "84"),
    (["pktgen", "emu:82599,wire=sink", "--vlan", "4095"], 64, "--vlan"),
    (["pktgen", "emu:82599,wire=sink", "--template", "/etc/passwd"], 1, "/etc/passwd"),
    (["replay", "emu:82599,wire=sink", "-r", "/etc/passwd"], 1, "/etc/passwd"),
    (
      ["replay", "emu:82599,wire=sink", "-r", "/etc/passwd", "--fast", "--rate", "1"], 64, "--rate"
    ),
    (["echo", "emu:82599,wire=sink", "--ip", "10.0.0"], 64, "as in 10.0.0.2"),
    (["echo", "emu:82599,wire=sink", "--ip", "0.0.0.0"], 64, "address of a host"),
    (["echo", "emu:82599,wire=sink", "--ip", "224.0.0.1"], 64, "address of a host"),
    (["echo", "emu:82599,wire=sink", "--ip", "255.255.255.255"], 64, "address of a host"),
    (["echo", "emu:82599,wire=sink", "--ip", "+10.0.0.1"], 64, "address of a host"),
    (["sink", "emu:82599,wire=generator,lose=1"], 64, "lose"),
    (["sink", "emu:82599,wire=sink", "--duration", "-5"], 64, "more than 0"),
    (["sink", "emu:82599,wire=sink", "--count", "-5"], 64, "from 1 on"),
    (["sink", "emu:82599,wire=sink", "--metrics", "localhost"], 64, "as in 127.0.0.1:9000"),
    (["demo", "--metrics", "9000"], 64, "as in 127.0.0.1:9000"),
    (["demo", "--metrics", "192.0.2.1:9000"], 1, "192.0.2.1:9000"),
    (["info", "vfio-user:"], 64, "path of a socket"),
    (["info", "0000:03:00.8"], 64, "it is no card"),
    (["info", "emu:82599,wire=link"], 64, "link,peer=VALUE"),
    (["info", "emu:82599,wire=sink", "--metrics", "127.0.0.1:9000"], 64, "Unknown option"),
    (["trace", "vfio-user:/a"], 64, "cannot be traced"),
    (["bind", "03:00"], 64, "as in 0000:03:00.0"),
    (["bind", "ffff:ff:1f.7"], 1, "Error: "),
    (
      ["dump", "emu:82599,wire=generator", "-w", "/does/not/exist.pcap"], 1, "/does/not/exist.pcap"
    ),
    (["emulate", "82599"], 64, "--socket"),
    (["emulate", "e1000", "--socket", "x"], 64, "e1000"),
    (["emulate", "82599", "--socket", "x", "--wire", "string"], 64, "string"),
    (["emulate", "82599", "--socket", "/does/not/exist"], 1, "/does/not/exist"),
  ])
  func `bad input is one clear message and a status`(
    arguments: [String], status: Int32, words: String
  ) throws {
    let result = try Command(arguments, in: scratch).wait()
    #expect(result.status == status, "\(result.errors)")
    #expect(result.errors.contains(words), "\(result.errors)")
    #expect(result.output.isEmpty)
    #expect(!result.errors.contains("Fatal error") && !result.errors.contains(" \n"))
  }

  @Test func `a card of this machine that the kernel uses is refused`() throws {
    let list = try Command.run("list", "--json", in: scratch)
    #expect(list.status == 0, "\(list.errors)")
    // Every card that carries the machine's own traffic must be refused, whatever else happens.
    for line in list.output.split(separator: "\n") where line.contains("\"eth0\"") {
      let address = try #require(line.firstMatch(of: /"address":"([0-9a-f:.]+)"/)?.1)
      let result = try Command.run(
        "fwd", String(address), "emu:82599,wire=sink", "--duration", "1s", in: scratch)
      #expect(result.status == 1)
      #expect(result.errors.contains(address))
    }
  }

  @Test func `a second server on the same socket is refused`() throws {
    let path = scratch.path("s")
    let first = try Command(["emulate", "82599", "--socket", path], in: scratch)
    try first.wait(for: "its socket") { FileManager.default.fileExists(atPath: path) }
    let second = try Command.run("emulate", "82599", "--socket", path, in: scratch)
    #expect(second.status == 1 && second.errors.contains(path))
    first.interrupt()
    let end = try first.wait()
    #expect(end.status == 0, "\(end.errors)")
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test func `dump writes what pktgen's format sends, and tcpdump reads it`() throws {
    let file = scratch.path("dump.pcap")
    let result = try Command.run(
      "dump", "emu:82599,wire=generator,count=500,size=100", "-w", file, "-c", "500", "-s", "64",
      "--json", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let captured = try frames(of: file)
    #expect(captured.count == 500 && captured.allSatisfy { $0.count == 64 })
    let text = try shell("tcpdump -nr \(file)", in: scratch)
    #expect(text.split(separator: "\n").count == 500)
    #expect(text.contains("UDP, length 58"))
  }

  @Test func `pktgen sends as many frames as asked for, at the size asked for`() throws {
    let file = scratch.path("sent.pcap")
    let result = try Command.run(
      "pktgen", "emu:82599,wire=pcap,out=\(file)", "--count", "3000", "--size", "128", "--json",
      in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try Event.all(in: result.output).last?.ports?[0].tx_packets == 3000)
    let sent = try frames(of: file)
    #expect(sent.count == 3000 && sent.allSatisfy { $0.count == 128 })
    // IPv4 header checksums are right, and the numbers in order.
    for (i, frame) in sent.enumerated() {
      let words = stride(from: 14, to: 34, by: 2).map {
        UInt32(frame[$0]) << 8 | UInt32(frame[$0 + 1])
      }
      let sum = words.reduce(0, +)
      #expect(sum & 0xFFFF + sum >> 16 == 0xFFFF)
      #expect(Int(frame[52]) << 8 | Int(frame[53]) == i)
    }
  }
}
