import Foundation
import Testing

@Suite struct ForwardTests {
  let scratch: Scratch
  /// A capture of pings, HTTP and datagrams over IPv4 and IPv6; some frames are larger than the MTU.
  let traffic: String

  init() throws {
    scratch = try Scratch()
    let resources = try #require(Bundle.module.resourceURL)
    traffic = resources.appending(path: "traffic.pcap").path
  }

  @Test(arguments: [1, 32, 512])
  func `real traffic passes byte for byte and in order`(batch: Int) throws {
    let out = scratch.path("out.pcap")
    let before = try frames(of: traffic)
    let small = before.filter { $0.count <= 1518 }
    #expect(small.count > 100 && small.count < before.count)
    // It ends with the last frame; the larger ones came before.
    #expect(before.last == small.last)
    let result = try Command.run(
      "fwd", "emu:82599,wire=pcap,in=\(traffic)", "emu:82599,wire=pcap,out=\(out)", "--count",
      "\(small.count)", "--exit-when-idle", "30s", "--json", "--batch", "\(batch)", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: out) == small.map(padded))
    let summary = try #require(try Event.all(in: result.output).last)
    #expect(summary.event == "summary")
    let ports = try #require(summary.ports)
    #expect(ports.map(\.rx_packets) == [small.count, 0])
    #expect(ports.map(\.tx_packets) == [0, small.count])
    #expect(ports.map(\.rx_errors) == [before.count - small.count, 0])
    #expect(ports[0].rx_bytes == small.map { max(60, $0.count) }.reduce(0, +))
    #expect(ports[0].rx_dropped == 0)
  }

  @Test(arguments: [1, 32, 512])
  func `real traffic passes in place, both ways at once, touched`(batch: Int) throws {
    let (left, right) = (scratch.path("left.pcap"), scratch.path("right.pcap"))
    let expected = try touched(traffic)
    let result = try Command.run(
      "fwd", "emu:82599,wire=pcap,in=\(traffic),out=\(left)",
      "emu:x550,wire=pcap,in=\(traffic),out=\(right)", "--count", "\(2 * expected.count)",
      "--exit-when-idle", "30s", "--touch", "--in-place", "--batch", "\(batch)", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: left) == expected)
    #expect(try frames(of: right) == expected)
  }

  @Test func `a larger MTU lets larger frames pass`() throws {
    let out = scratch.path("out.pcap")
    let before = try frames(of: traffic).filter { $0.count <= 9600 }
    #expect(before.contains { $0.count > 9000 })
    let result = try Command.run(
      "fwd", "emu:82599,wire=pcap,in=\(traffic)", "emu:x540,wire=pcap,out=\(out)", "--count",
      "\(before.count)", "--exit-when-idle", "30s", "--mtu", "9582", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: out) == before.map(padded))
  }

  @Test func `frames pass both ways at once, touched`() throws {
    let (left, right) = (scratch.path("left.pcap"), scratch.path("right.pcap"))
    let expected = try touched(traffic)
    let result = try Command.run(
      "fwd", "emu:82599,wire=pcap,in=\(traffic),out=\(left)",
      "emu:x550,wire=pcap,in=\(traffic),out=\(right)", "--count", "\(2 * expected.count)",
      "--exit-when-idle", "30s", "--touch", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: left) == expected)
    #expect(try frames(of: right) == expected)
  }

  @Test func `a count ends it after so many frames`() throws {
    let result = try Command.run(
      "fwd", "emu:82599,wire=generator", "emu:82599,wire=sink", "--count", "1000", "--json",
      in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let ports = try #require(try Event.all(in: result.output).last?.ports)
    #expect(ports[0].rx_packets == 1000)
    #expect(ports[1].tx_packets == 1000)
  }

  @Test(arguments: [[], ["--queues", "2"], ["--pipeline"]])
  func `an idle time ends it where no frame comes`(mode: [String]) throws {
    let start = ContinuousClock.now
    let result = try Command(
      [
        "fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--exit-when-idle", "200ms", "--json",
      ] + mode, in: scratch
    ).wait()
    #expect(ContinuousClock.now - start >= .milliseconds(200))
    #expect(result.status == 0, "\(result.errors)")
    #expect(try Event.all(in: result.output).last?.event == "summary")
  }

  @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
  func `a signal is a normal end with a summary`(signal: Int32) throws {
    let command = try Command(
      ["fwd", "emu:82599,wire=generator", "emu:82599,wire=sink", "--json"], in: scratch)
    try command.waitForFrames()
    command.interrupt(signal)
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
    let events = try Event.all(in: result.output)
    #expect(events.first?.event == "stats" && events.last?.event == "summary")
    #expect(events.dropLast().allSatisfy { ["stats", "sink"].contains($0.event) })
    // The rates of the seconds cannot add up to more than the sum.
    let seconds = events.dropLast().compactMap { $0.ports?[0].rx_packets }.reduce(0, +)
    #expect(seconds > 0 && seconds <= events.last?.ports?[0].rx_packets ?? 0)
  }

  @Test func `cards with a PHY forward, too`() throws {
    let result = try Command.run(
      "fwd", "emu:x540,wire=generator", "emu:x550,wire=sink", "--count", "2000", "--json",
      in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let ports = try #require(try Event.all(in: result.output).last?.ports)
    #expect(ports[0].rx_packets == 2000 && ports[1].tx_packets == 2000)
    #expect(result.errors.isEmpty, "\(result.errors)")
  }

  @Test func `the demo accounts for every frame`() throws {
    let demo = try Command(["demo"], in: scratch)
    try demo.wait(for: "frames") { demo.output.contains(/: rx [1-9]/) || !demo.isRunning }
    demo.interrupt()
    let result = try demo.wait()
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.hasSuffix(": every frame accounted for\n"))
  }

  @Test func `the demo accounts for every frame in JSON, too`() throws {
    let demo = try Command(["demo", "--json"], in: scratch)
    try demo.waitForFrames()
    demo.interrupt()
    let result = try demo.wait()
    #expect(result.status == 0, "\(result.errors)")
    let ports = try #require(try Event.all(in: result.output).last?.ports)
    #expect(ports.count == 2 && ports[0].rx_packets == ports[1].tx_packets)
    #expect(result.errors.contains(": every frame accounted for"))
  }

  @Test func `two cards that another process serves forward its frames`() throws {
    let (a, b) = (scratch.path("a"), scratch.path("b"))
    let generator = try Command(
      [
        "emulate", "82599", "--socket", a, "--wire", "generator,count=20000", "--json", "--once",
      ], in: scratch)
    let sink = try Command(
      ["emulate", "82599", "--socket", b, "--wire", "sink", "--json", "--once"], in: scratch)
    for (server, path) in [(generator, a), (sink, b)] {
      try server.wait(for: "its socket") { FileManager.default.fileExists(atPath: path) }
    }
    let result = try Command.run(
      "fwd", "vfio-user:\(a)", "vfio-user:\(b)", "--count", "20000", "--exit-when-idle", "30s",
      "--json", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let ports = try #require(try Event.all(in: result.output).last?.ports)
    #expect(ports[0].rx_packets == 20000 && ports[1].tx_packets == 20000)
    let sent = try Event.all(in: try generator.wait().output).last?.wire
    let arrived = try Event.all(in: try sink.wait().output).last?.wire
    #expect(sent?.sent == 20000)
    #expect(arrived?.received == 20000 && arrived?.lost == 0 && arrived?.reordered == 0)
    #expect(
      !FileManager.default.fileExists(atPath: a) && !FileManager.default.fileExists(atPath: b))
  }

  @Test func `a server that dies is an error, and no crash`() throws {
    let a = scratch.path("a")
    let server = try Command(
      ["emulate", "82599", "--socket", a, "--wire", "generator"], in: scratch)
    try server.wait(for: "its socket") { FileManager.default.fileExists(atPath: a) }
    let command = try Command(
      ["fwd", "vfio-user:\(a)", "emu:82599,wire=sink", "--json"], in: scratch)
    try command.wait(for: "statistics") { command.output.contains("stats") }
    server.interrupt(SIGKILL)
    let result = try command.wait()
    #expect(result.status == 1)
    #expect(result.errors.contains("vfio-user:\(a)"))
    #expect(try Event.all(in: result.output).last?.event == "summary")
  }
}
