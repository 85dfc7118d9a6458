import Foundation
import Testing

/// `ixy dump` and `ixy replay`, against tcpdump and tshark.
@Suite struct DumpTests {
  let scratch: Scratch
  let traffic: String

  init() throws {
    scratch = try Scratch()
    let resources = try #require(Bundle.module.resourceURL)
    traffic = resources.appending(path: "traffic.pcap").path
  }

  /// The frames of the traffic that the card takes.
  private var sent: [Data] {
    get throws { try frames(of: traffic).filter { $0.count <= 9600 }.map(padded) }
  }

  /// Captures the traffic, as far as the card takes it.
  private func capture(_ options: String...) throws -> String {
    let command = try Command(
      [
        "dump", "emu:82599,wire=pcap,in=\(traffic)", "--mtu", "9582", "-c", "\(sent.count)",
        "--exit-when-idle", "30s",
      ] + options, in: scratch)
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
    return result.output
  }

  /// The lines that another program prints.
  private func lines(_ script: String) throws -> [Substring] {
    try shell(script, in: scratch).split(separator: "\n")
  }

  @Test(arguments: ["pcap", "pcapng"])
  func `tcpdump and tshark agree on frames, lengths and nanoseconds`(format: String) throws {
    let file = scratch.path("a.\(format)")
    let before = UInt64(Date.now.timeIntervalSince1970)
    _ = try capture("-w", file)
    let sent = try sent
    let sizes = try lines("tshark -r \(file) -T fields -e frame.len -e frame.cap_len")
    #expect(sizes.map(String.init) == sent.map { "\($0.count)\t\($0.count)" })
    #expect(try lines("tcpdump -nr \(file)").count == sent.count)
    let times = try lines("tshark -r \(file) -T fields -e frame.time_epoch")
    for time in times {
      let parts = time.split(separator: ".")
      #expect(parts[1].count == 9)
      #expect(try #require(UInt64(parts[0])) - before < 60)
    }
    // What stands behind the microseconds is not always 000.
    #expect(times.contains { !$0.hasSuffix("000") })
    #expect(times == times.sorted())
  }

  @Test func `lines are those of tcpdump`() throws {
    let file = scratch.path("a.pcap")
    let printed = try capture("-t", "-w", file, "--print")
    let expected = try lines("tcpdump -nnSt -r \(file)")
    #expect(expected.count > 100)
    #expect(printed.split(separator: "\n").filter { !$0.hasPrefix("emu:") } == expected)
    let bytes = try capture("-t", "-x", "-e")
    let dumped = try lines("tcpdump -nnSte -x -r \(file)")
    #expect(bytes.split(separator: "\n").filter { !$0.hasPrefix("emu:") } == dumped)
  }

  @Test(arguments: ["icmp or arp", "tcp port 8000 and greater 200", "ip6", "not tcp", "vlan"])
  func `a filter chooses what tcpdump chooses`(filter: String) throws {
    let (all, some) = (scratch.path("all.pcap"), scratch.path("some.pcap"))
    _ = try capture("-w", all)
    let command = try Command(
      ["dump", "emu:82599,wire=pcap,in=\(traffic)", "--mtu", "9582", "-w", some, "--json", filter],
      path: Command.dynamicPath, in: scratch)
    try command.waitForFrames(sent.count)
    command.interrupt()
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
    let chosen = scratch.path("chosen.pcap")
    try shell("tcpdump -r \(all) -w \(chosen) '\(filter)'", in: scratch)
    #expect(try frames(of: some) == frames(of: chosen))
  }

  @Test func `a filter that cannot be had is one clear message`() throws {
    let wrong = try Command(
      ["dump", "emu:82599,wire=sink", "tcp", "prot", "80"], path: Command.dynamicPath, in: scratch
    ).wait()
    #expect(wrong.status == 1 && wrong.errors.contains("tcp prot 80"))
    if Command.path == Command.dynamicPath { return }
    let linked = try Command.run("dump", "emu:82599,wire=sink", "tcp", in: scratch)
    #expect(linked.status == 1 && linked.errors.contains("linked statically"))
  }

  @Test(arguments: [("pcap", 60, 150_000), ("pcapng", 1000, 20_001)])
  func `a capture goes on over many windows of its file`(
    format: String, size: Int, count: Int
  ) throws {
    let file = scratch.path("long.\(format)")
    let wire = "generator,size=\(size),count=\(count)"
    let result = try Command.run(
      "dump", "emu:82599,wire=\(wire)", "-w", file, "-c", "\(count)", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let sink = try Command.run(
      "sink", "emu:82599,wire=pcap,in=\(file)", "--count", "\(count)", "--exit-when-idle", "20s",
      in: scratch)
    #expect(sink.output.contains("\(count) numbered frames and 0 others; 0 lost"), "\(sink.output)")
  }

  @Test func `a count and a snap length`() throws {
    let file = scratch.path("a.pcapng")
    let result = try Command.run(
      "dump", "emu:82599,wire=generator,size=100", "-w", file, "-c", "77", "-s", "61", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let sizes = try lines("tshark -r \(file) -T fields -e frame.len -e frame.cap_len")
    #expect(sizes == Array(repeating: "100\t61", count: 77))
  }

  @Test func `files rotate by size`() throws {
    let folder = scratch.path("rotation")
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    func names(_ options: String...) throws -> [String] {
      let command = try Command(
        ["dump", "emu:82599,wire=generator,size=1000", "-c", "5000", "-w", "\(folder)/f"] + options,
        in: scratch)
      let result = try command.wait()
      #expect(result.status == 0, "\(result.errors)")
      return try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
    }
    let all = try names("-C", "1")
    #expect(all == ["f", "f1", "f2", "f3", "f4", "f5"])
    #expect(try all.map { try frames(of: "\(folder)/\($0)").count }.reduce(0, +) == 5000)
    for name in all { try FileManager.default.removeItem(atPath: "\(folder)/\(name)") }
    // 985 frames a file: the sixth file is the third again.
    #expect(try names("-C", "1", "-W", "3") == ["f0", "f1", "f2"])
    #expect(try frames(of: "\(folder)/f2").count == 75)
  }

  @Test func `files rotate by time, and the last one is the end`() throws {
    let result = try Command.run(
      "dump", "emu:82599,wire=generator,rate=500", "-w", scratch.path("%s.pcap"), "-G", "1", "-W",
      "2", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let files = try FileManager.default.contentsOfDirectory(atPath: scratch.path("."))
      .filter { $0.hasSuffix(".pcap") }.sorted()
    #expect(files.count == 2)
    let times = try files.map { file in
      try lines("tshark -r \(file) -T fields -e frame.time_epoch").compactMap { Double($0) }
    }
    // The first file may have none, on a machine that is busy for its second.
    #expect(times.last?.isEmpty == false)
    for (file, times) in zip(files, times) {
      // The name is the second in which the file begins.
      let began = try #require(Double(file.dropLast(5)))
      #expect(times.allSatisfy { began <= $0 && $0 < began + 2 }, "\(file): \(times)")
      #expect((times.last ?? 0) - (times.first ?? 0) < 1, "\(file): \(times)")
    }
  }

  @Test(arguments: [SIGINT, SIGTERM, SIGHUP, SIGKILL])
  func `the file is valid whatever ends the capture`(signal: Int32) throws {
    let file = scratch.path("a.pcap")
    let command = try Command(
      ["dump", "emu:82599,wire=generator,rate=2000", "-w", file, "--json"], in: scratch)
    try command.waitForFrames(101)
    command.interrupt(signal)
    _ = try command.wait()
    // Who was killed has a helper that cuts the file.
    try command.wait(for: "the file's end") { isFree(file) }
    let count = try frames(of: file).count
    #expect(count > 100)
    #expect(try lines("tcpdump -nr \(file) 2>&1").count == count + 1)
  }

  @Test func `a pipe gets frames while they come, and its end is a normal end`() throws {
    let count = try shell(
      """
      \(Command.path) dump emu:82599,wire=generator,rate=1000 -w - | tcpdump -c 100 -nr - | wc -l
      """, in: scratch)
    #expect(count == "100\n")
  }

  @Test(.enabled(if: canUnshare, "needs root that may mount a small file system"))
  func `a full disk ends the capture after the last whole frame`() throws {
    let disk = scratch.path("disk")
    try shell("mkdir \(disk) && mount -t tmpfs -o size=1m none \(disk)", in: scratch)
    defer { _ = try? shell("umount \(disk)", in: scratch) }
    let result = try Command.run(
      "dump", "emu:82599,wire=generator,size=1000", "-w", "\(disk)/a.pcap", in: scratch)
    #expect(result.status == 1)
    #expect(result.errors.contains("Is the disk full?"), "\(result.errors)")
    let count = try frames(of: "\(disk)/a.pcap").count
    // 1 MiB has room for 1,032 frames of 1,016 bytes.
    #expect(count == 1032, "\(count)")
    #expect(try lines("tcpdump -nr \(disk)/a.pcap").count == count)
    #expect(result.errors.contains("\(count) frames are in"), "\(result.errors)")
  }

  @Test(arguments: ["pcap", "pcapng"])
  func `a capture that is replayed is the same byte for byte`(format: String) throws {
    let (first, second) = (scratch.path("a.\(format)"), scratch.path("b.pcap"))
    _ = try capture("-w", first)
    let result = try Command.run(
      "replay", "emu:82599,wire=pcap,out=\(second)", "-r", first, "--mtu", "9582", "--fast",
      in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: second) == sent)
  }

  @Test func `more frames than the ring has room for are replayed at once`() throws {
    let file = scratch.path("many.pcap")
    let made = try Command.run(
      "dump", "emu:82599,wire=generator,count=3000", "-w", file, "-c", "3000",
      in: scratch)
    #expect(made.status == 0, "\(made.errors)")
    let result = try Command.run("replay", "emu:82599,wire=loop", "-r", file, "--fast", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.contains("sent 3000"), "\(result.output)")
  }

  @Test func `output that cannot be written is an error`() throws {
    let line =
      "\(Command.path) info emu:82599,wire=loop > /dev/full 2> error || echo $? >> error; cat error"
    let text = try shell(line, in: scratch)
    #expect(
      text.contains("Write to standard output: No space left on device") && text.hasSuffix("1\n"),
      "\(text)")
  }

  @Test func `tshark's pcapng is replayed, and a loop sends it again`() throws {
    let (file, out) = (scratch.path("a.pcapng"), scratch.path("b.pcap"))
    try shell("editcap -F pcapng \(traffic) \(file)", in: scratch)
    let result = try Command.run(
      "replay", "emu:82599,wire=pcap,out=\(out)", "-r", file, "--loop", "3", "--fast", "--json",
      in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let small = try frames(of: traffic).filter { $0.count <= 1518 }.map(padded)
    #expect(try frames(of: out) == small + small + small)
    #expect(result.errors.contains("too long"))
  }

  @Test(arguments: [([], 2), (["--rate", "20"], 1), (["--fast"], 0)])
  func `a replay takes its time, and keeps the order`(options: [String], seconds: Double) throws {
    let (file, out) = (scratch.path("a.pcap"), scratch.path("b.pcap"))
    let sent = try writeTenASecond(to: file)
    let start = ContinuousClock.now
    let result = try Command(
      ["replay", "emu:82599,wire=pcap,out=\(out)", "-r", file] + options, in: scratch
    ).wait()
    // It cannot be shorter; how much longer, the machine decides. When each frame is due, `PaceTests` show.
    #expect(ContinuousClock.now - start >= .seconds(seconds))
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: out) == sent)
  }

  @Test(arguments: [
    [], ["-C", "1"], ["-W", "2", "-w", "f"], ["-G", "1", "-w", "f"], ["-s", "0", "-w", "f"],
    ["-c", "0"],
  ])
  func `options that do not fit together are refused`(options: [String]) throws {
    let card = options.isEmpty ? [] : ["emu:82599,wire=sink"]
    let result = try Command(["dump"] + card + options, in: scratch).wait()
    #expect(result.status == 64)
  }
}
