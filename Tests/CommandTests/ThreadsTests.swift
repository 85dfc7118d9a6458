import Foundation
import Testing

/// The forwarder with several threads.
@Suite struct ThreadsTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  @Test(arguments: [1, 2, 4])
  func `queues on threads of their own forward every flow in order`(queues: Int) throws {
    let (a, b) = (scratch.path("a"), scratch.path("b"))
    let generator = try Command(
      [
        "emulate", "82599", "--socket", a, "--wire", "generator,count=30000,flows=1000", "--json",
        "--once",
      ], in: scratch)
    let sink = try Command(
      ["emulate", "82599", "--socket", b, "--wire", "sink", "--json", "--once"], in: scratch)
    for (server, path) in [(generator, a), (sink, b)] {
      try server.wait(for: "its socket") { FileManager.default.fileExists(atPath: path) }
    }
    let result = try Command.run(
      "fwd", "vfio-user:\(a)", "vfio-user:\(b)", "--queues", "\(queues)", "--count", "30000",
      "--exit-when-idle", "30s", "--json", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let ports = try #require(try Event.all(in: result.output).last?.ports)
    #expect(ports[0].rx_packets == 30000 && ports[1].tx_packets == 30000)
    let received = ports[0].queues?.map(\.rx_packets) ?? []
    #expect(received.count == (queues > 1 ? queues : 0))
    if queues > 1 { #expect(received.reduce(0, +) == 30000 && received.allSatisfy { $0 > 3000 }) }
    let arrived = try Event.all(in: try sink.wait().output).last?.wire
    #expect(arrived?.received == 30000 && arrived?.lost == 0 && arrived?.reordered == 0)
    _ = try generator.wait()
  }

  @Test func `three stages pass real traffic byte for byte and in order`() throws {
    let resources = try #require(Bundle.module.resourceURL)
    let traffic = resources.appending(path: "traffic.pcap").path
    let (left, right) = (scratch.path("left.pcap"), scratch.path("right.pcap"))
    let expected = try touched(traffic)
    let result = try Command.run(
      "fwd", "emu:82599,wire=pcap,in=\(traffic),out=\(left)",
      "emu:x550,wire=pcap,in=\(traffic),out=\(right)", "--pipeline", "--touch", "--count",
      "\(2 * expected.count)", "--exit-when-idle", "30s", "--json", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: left) == expected)
    #expect(try frames(of: right) == expected)
    let ports = try #require(try Event.all(in: result.output).last?.ports)
    #expect(ports.map(\.tx_packets) == [expected.count, expected.count])
  }

  @Test(arguments: [["--queues", "3"], ["--pipeline"]])
  func `a count is for all threads together`(mode: [String]) throws {
    let command = try Command(
      [
        "fwd", "emu:82599,wire=generator,flows=100", "emu:82599,wire=sink", "--count", "10000",
        "--json",
      ] + mode, in: scratch)
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
    let ports = try #require(try Event.all(in: result.output).last?.ports)
    #expect(ports[0].rx_packets == 10000)
    // On a busy machine the ring may be full for a moment: such frames are dropped, and counted.
    #expect(ports[1].tx_packets + ports[1].tx_dropped == 10000)
  }

  @Test(arguments: [["--queues", "2"], ["--pipeline"]])
  func `a signal ends all threads, with a summary`(mode: [String]) throws {
    let command = try Command(
      ["fwd", "emu:82599,wire=generator,flows=100", "emu:82599,wire=sink", "--json"] + mode,
      in: scratch)
    try command.waitForFrames()
    command.interrupt(SIGINT)
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
    let events = try Event.all(in: result.output)
    #expect(events.last?.event == "summary")
    let seconds = events.dropLast().compactMap { $0.ports?[0].rx_packets }.reduce(0, +)
    #expect(seconds > 0 && seconds <= events.last?.ports?[0].rx_packets ?? 0)
  }

  @Test func `a card that goes away ends all threads with an error`() throws {
    let a = scratch.path("a")
    let server = try Command(
      ["emulate", "82599", "--socket", a, "--wire", "generator,flows=100"], in: scratch)
    try server.wait(for: "its socket") { FileManager.default.fileExists(atPath: a) }
    let command = try Command(
      ["fwd", "vfio-user:\(a)", "emu:82599,wire=sink", "--json", "--queues", "2"], in: scratch)
    try command.wait(for: "statistics") { command.output.contains("stats") }
    server.interrupt(SIGKILL)
    let result = try command.wait()
    #expect(result.status == 1)
    #expect(result.errors.contains("vfio-user:\(a)"))
  }

  @Test func `each thread is on its core and has its name`() throws {
    let allowed = try cores(of: "/proc/self/status")
    let chosen = allowed.count > 1 ? [allowed[1], allowed[0]] : [allowed[0], allowed[0]]
    if Set(chosen).count < 2 { return }
    let command = try Command(
      [
        "fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--cores",
        chosen.map(String.init).joined(separator: ","), "--json",
      ], in: scratch)
    try command.wait(for: "statistics") { command.output.contains("stats") }
    let tasks = "/proc/\(command.identifier)/task"
    var found: [String: [Int]] = [:]
    for task in try FileManager.default.contentsOfDirectory(atPath: tasks) {
      // One that ended meanwhile was none of those that are looked for.
      let name = try? String(contentsOfFile: "\(tasks)/\(task)/comm", encoding: .utf8)
      guard let name = name?.trimmingCharacters(in: .whitespacesAndNewlines) else { continue }
      found[name] = try? cores(of: "\(tasks)/\(task)/status")
    }
    // The list is a set: the lowest goes to the first thread.
    #expect(found["ixy-0"] == [chosen.sorted()[0]])
    #expect(found["ixy-1"] == [chosen.sorted()[1]])
    command.interrupt()
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
  }

  @Test(arguments: [
    ["--queues", "0"], ["--queues", "65"], ["--queues", "-1"], ["--cores", "x"], ["--cores", ""],
    ["--cores", "1-"], ["--queues", "3", "--cores", "0,1"], ["--pipeline", "--queues", "2"],
    ["--pipeline", "--cores", "0,1"], ["--numa", "x"], ["--numa", "-1"], ["--numa", "1024"],
  ])
  func `arguments that cannot be are refused`(arguments: [String]) throws {
    let command = try Command(
      ["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--duration", "1s"] + arguments,
      in: scratch)
    let result = try command.wait()
    #expect(result.status == 64 && result.errors.contains(arguments[0]), "\(result.errors)")
  }

  @Test(arguments: [
    (["--cores", "4000,4001"], "core 4000"), (["--numa", "1000"], "NUMA node 1000"),
  ])
  func `what this machine does not have is said`(arguments: [String], message: String) throws {
    let command = try Command(
      ["fwd", "emu:82599,wire=sink", "emu:82599,wire=sink", "--duration", "1s"] + arguments,
      in: scratch)
    let result = try command.wait()
    #expect(result.status == 1)
    #expect(result.errors.contains(message))
  }

  /// The processors that a thread may use, by its status file.
  private func cores(of path: String) throws -> [Int] {
    let status = try String(contentsOfFile: path, encoding: .utf8)
    let line = try #require(
      status.split(separator: "\n").first { $0.hasPrefix("Cpus_allowed_list:") })
    let list = line.split(separator: "\t").last.map(String.init) ?? ""
    return list.split(separator: ",").flatMap { part -> [Int] in
      let ends = part.split(separator: "-").compactMap { Int($0) }
      return Array(ends[0]...ends[ends.count - 1])
    }
  }
}
