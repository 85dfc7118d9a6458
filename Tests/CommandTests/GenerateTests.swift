import Foundation
import Testing

/// `ixy pktgen` and `ixy sink`.
@Suite struct GenerateTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private struct Sink: Decodable {
    struct Latency: Decodable {
      var p50: Int
      var p99: Int
      var p999: Int
      var max: Int
    }
    var event: String
    var received: Int
    var others: Int
    var lost: Int
    var reordered: Int
    var latency_ns: Latency?
  }

  private func sink(_ output: String) throws -> Sink {
    let line = try #require(output.split(separator: "\n").last)
    return try JSONDecoder().decode(Sink.self, from: Data(line.utf8))
  }

  @Test func `a forwarder says what arrived at a sink behind it`() throws {
    let result = try Command.run(
      "fwd", "emu:82599,wire=generator", "emu:82599,wire=sink", "--json", "--count", "1000",
      in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let lines = result.output.split(separator: "\n")
    let line = try #require(lines.first { $0.contains("\"sink\",\"latency_ns\"") })
    let report = try sink(String(line))
    #expect(report.received == 1000 && report.others == 0)
    #expect(report.lost == 0 && report.reordered == 0)
    let latency = try #require(report.latency_ns)
    #expect(0 < latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max)
  }

  /// What tshark sees of generated frames.
  private func generate(_ options: String..., fields: String) throws -> [[String]] {
    let file = scratch.path("sent.pcap")
    let command = try Command(
      ["pktgen", "emu:82599,wire=pcap,out=\(file)", "--count", "1200"] + options, in: scratch)
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
    let names = fields.split(separator: " ").map { "-e \($0)" }.joined(separator: " ")
    let text = try shell(
      """
      tshark -o ip.check_checksum:TRUE -o udp.check_checksum:TRUE -r \(file) -T fields \(names)
      """, in: scratch)
    let rows = text.split(separator: "\n").map { row in
      row.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
    }
    #expect(rows.count == 1200)
    return rows
  }

  @Test func `IPv6 frames of three flows in a VLAN have right checksums`() throws {
    let rows = try generate(
      "--ipv6", "--vlan", "42", "--flows", "3", "--size", "imix",
      fields: "frame.len vlan.id udp.checksum.status ipv6.src udp.length")
    #expect(Set(rows.map { $0[1...2].joined() }) == ["421"])
    for i in 0..<3 {
      #expect(rows.filter { $0[3] == "2001:2:0:1::\(i == 0 ? "" : "\(i)")" }.count == 400)
    }
    // Seven short, four middling and one long of each twelve; the short ones grow to what they need.
    let sizes = rows.map { $0[0] }
    #expect(sizes.filter { $0 == "84" }.count == 700)
    #expect(sizes.filter { $0 == "590" }.count == 400)
    #expect(sizes.filter { $0 == "1514" }.count == 100)
    #expect(rows.allSatisfy { Int($0[4]) == (Int($0[0]) ?? 0) - 58 })
  }

  @Test func `a range of sizes is gone through, with right checksums`() throws {
    let rows = try generate("--size", "60-359", fields: "frame.len ip.checksum.status ip.len")
    #expect(rows.allSatisfy { $0[1] == "1" && Int($0[2]) == (Int($0[0]) ?? 0) - 14 })
    #expect(Set(rows.map { $0[0] }).count == 300)
  }

  @Test func `a template is sent as it is`() throws {
    let resources = try #require(Bundle.module.resourceURL)
    let template = resources.appending(path: "traffic.pcap").path
    let file = scratch.path("sent.pcap")
    let result = try Command.run(
      "pktgen", "emu:82599,wire=pcap,out=\(file)", "--template", template, "--count", "100",
      in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let first = try #require(try frames(of: template).first)
    #expect(try frames(of: file) == Array(repeating: padded(first), count: 100))
  }

  @Test func `with a rate each frame is made at its time, and none before`() throws {
    // Once is enough: how late a frame is, a busy machine decides.
    #expect(try (0..<3).contains { _ in try secondsToGenerate() < 1.1 })
  }

  /// Generates 2,000 frames in a second, and checks that none came too early.
  ///
  /// - Returns: The seconds from the first to the last.
  private func secondsToGenerate() throws -> Double {
    let file = scratch.path("sent.pcap")
    let start = DispatchTime.now().uptimeNanoseconds
    let result = try Command.run(
      "pktgen", "emu:82599,wire=pcap,out=\(file)", "--rate", "2000", "--count", "2000", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let sent = try frames(of: file)
    #expect(sent.count == 2000)
    // Each says when it was made.
    let times = sent.map { frame in
      (frame[54..<60].reduce(UInt64(0)) { $0 << 8 | UInt64($1) } &- start) % (1 << 48)
    }
    for (i, time) in times.enumerated() { #expect(time >= UInt64(i) * 500_000, "frame \(i)") }
    return Double(try #require(times.last) - times[0]) / 1e9
  }

  @Test func `the sink reports exactly what the wire loses and swaps`() throws {
    // The last frame, whose loss nothing shows, is not among the lost ones.
    let result = try Command.run(
      "sink", "emu:82599,wire=generator,count=50010,lose=100,swap=333", "--count", "49510",
      "--exit-when-idle", "30s", "--json", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let sink = try sink(result.output)
    #expect(sink.lost == 500 && sink.received == 49_510 && sink.others == 0)
    // Of the 150 frames that should be overtaken, number 32,300 is one of the lost.
    #expect(sink.reordered == 149)
    let latency = try #require(sink.latency_ns)
    #expect(latency.p50 > 0 && latency.p50 <= latency.p99 && latency.p99 <= latency.p999)
    #expect(latency.p999 <= latency.max)
  }

  @Test(arguments: [["--ipv6"], ["--vlan", "7"], ["--ipv6", "--vlan", "7"], []])
  func `what pktgen sends arrives at a sink in another process`(options: [String]) throws {
    let (a, b) = (scratch.path("a"), scratch.path("b"))
    let sinking = try Command(
      [
        "sink", "emu:82599,wire=dgram,local=\(b),remote=\(a)", "--count", "3000", "--duration",
        "60s", "--json",
      ], in: scratch)
    try sinking.wait(for: "its socket") { FileManager.default.fileExists(atPath: b) }
    let sent = try Command(
      [
        "pktgen", "emu:82599,wire=dgram,local=\(a),remote=\(b)", "--count", "3000", "--flows", "5",
      ] + options, in: scratch
    ).wait()
    #expect(sent.status == 0, "\(sent.errors)")
    let result = try sinking.wait()
    #expect(result.status == 0, "\(result.errors)")
    let sink = try sink(result.output)
    #expect(sink.received == 3000 && sink.lost == 0 && sink.reordered == 0)
  }
}
