import Foundation
import Testing

/// Ways out that nobody has asked for: each command in a process of its own.
@Suite struct HardExitTests {
  let scratch: Scratch

  /// A process that is shot dies at once, and prints no backtrace first.
  private let mortal = ["SWIFT_BACKTRACE=enable=no"]

  init() throws { scratch = try Scratch() }

  /// Starts a card on a socket, and waits until it is there.
  private func serve(_ wire: String, at path: String) throws -> Command {
    // A server that was killed has left its socket there.
    let old = stamp(path)
    let server = try Command(
      ["emulate", "82599", "--socket", path, "--wire", wire, "--json"], in: scratch)
    try server.wait(for: "its socket") { stamp(path) != old && stamp(path) != nil }
    return server
  }

  /// When a file came to its path; its inode alone may be one that was used before.
  private func stamp(_ path: String) -> [Int]? {
    var status = stat()
    return stat(path, &status) == 0 ? [status.st_ctim.tv_sec, status.st_ctim.tv_nsec] : nil
  }

  /// The frames of a capture by tcpdump, which says nothing about a file that ends in a frame; nil when it does.
  private func whole(_ path: String) throws -> Int? {
    let result = try Command(["-nr", path], path: "tcpdump", in: scratch).wait()
    try #require(result.status != 127, "tcpdump is missing: make setup installs it")
    return result.status == 0 && !result.errors.contains("truncated")
      ? result.output.split(separator: "\n").count : nil
  }

  // MARK: - Captures

  @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
  func `a capture that a signal ends is whole, and so is its summary`(signal: Int32) throws {
    let file = scratch.path("a.pcap")
    let command = try Command(
      ["dump", "emu:82599,wire=generator,rate=5000", "-w", file, "--json"], in: scratch)
    try command.waitForFrames()
    command.interrupt(signal)
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
    let summary = try #require(try Event.all(in: result.output).last)
    #expect(summary.event == "summary")
    // What was received is in the file: the tail is not lost.
    #expect(try whole(file) == summary.ports?[0].rx_packets)
  }

  @Test(arguments: [SIGTRAP, SIGILL, SIGSEGV, SIGKILL])
  func `a capture whose process dies hard ends with a whole frame`(signal: Int32) throws {
    let file = scratch.path("a.pcap")
    let command = try Command(
      ["dump", "emu:82599,wire=generator,rate=50kpps", "-w", file, "--json"],
      prefix: mortal, in: scratch)
    try command.waitForFrames()
    command.interrupt(signal)
    #expect(try command.wait().status != 0)
    // Another process cuts it; the next start is not to meet that.
    try command.wait(for: "the file's end") { isFree(file) }
    #expect(try whole(file) != nil)
    // The next start works, on the same file.
    let next = try Command.run(
      "dump", "emu:82599,wire=generator,count=10", "-w", file, "-c", "10", in: scratch)
    #expect(next.status == 0, "\(next.errors)")
    #expect(try whole(file) == 10)
  }

  @Test(.enabled(if: canUnshare, "needs root that may mount a small file system"))
  func `a full disk is a message, and what was captured is whole`() throws {
    let (folder, file) = (scratch.path("small"), scratch.path("a.pcap"))
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    // The mount goes with its namespace; the capture is copied out of it before.
    let script = """
      mount -t tmpfs -o size=1m none \(folder) || exit 99
      "$@"; status=$?; cp \(folder)/a.pcap \(file); exit $status
      """
    let command = try Command(
      ["dump", "emu:82599,wire=generator", "-w", folder + "/a.pcap", "--json"],
      prefix: ["unshare", "-m", "sh", "-c", script, "sh"], in: scratch)
    let result = try command.wait()
    try #require(result.status != 99, "tmpfs cannot be mounted here")
    #expect(result.status == 1)
    #expect(result.errors.contains("No space left on device"), "\(result.errors)")
    #expect(result.errors.contains("a.pcap"))
    #expect(try #require(try whole(file)) > 100)
  }

  // MARK: - Cards that another process serves

  @Test(arguments: [SIGTRAP, SIGSEGV, SIGKILL])
  func `the server of a client that dies hard serves the next one`(signal: Int32) throws {
    let (a, b) = (scratch.path("a"), scratch.path("b"))
    let servers = try [serve("generator,rate=5000", at: a), serve("sink", at: b)]
    let first = try Command(
      ["fwd", "vfio-user:\(a)", "vfio-user:\(b)", "--json"], prefix: mortal, in: scratch)
    try first.waitForFrames()
    first.interrupt(signal)
    #expect(try first.wait().status != 0)
    let next = try Command.run(
      "fwd", "vfio-user:\(a)", "vfio-user:\(b)", "--count", "500", "--json", in: scratch)
    #expect(next.status == 0, "\(next.errors)")
    #expect(try Event.all(in: next.output).last?.ports?[0].rx_packets == 500)
    for server in servers {
      #expect(server.isRunning)
      // The card's memory was taken away with its client: it writes nowhere.
      #expect(!server.errors.contains("refused to"), "\(server.errors)")
      server.interrupt()
      let end = try server.wait()
      #expect(end.status == 0, "\(end.errors)")
    }
  }

  @Test(arguments: [SIGKILL, SIGTERM])
  func `a card whose process ends while it is used is an error that names it`(
    signal: Int32
  ) throws {
    let (a, file) = (scratch.path("a"), scratch.path("a.pcap"))
    let server = try serve("generator,rate=5000", at: a)
    let command = try Command(["dump", "vfio-user:\(a)", "-w", file, "--json"], in: scratch)
    try command.waitForFrames()
    server.interrupt(signal)
    let result = try command.wait()
    #expect(result.status == 1)
    #expect(result.errors.contains("vfio-user:\(a)"), "\(result.errors)")
    #expect(result.errors.contains("unplugged"), "\(result.errors)")
    #expect(!result.errors.contains("Fatal error"))
    #expect(try #require(try whole(file)) > 0)
    // The path is free for the next server, whether the first has cleaned up or not.
    _ = try? server.wait()
    let next = try serve("generator,count=100", at: a)
    let again = try Command.run("dump", "vfio-user:\(a)", "-w", file, "-c", "100", in: scratch)
    #expect(again.status == 0, "\(again.errors)")
    #expect(try whole(file) == 100)
    next.interrupt()
    let end = try next.wait()
    #expect(end.status == 0, "\(end.errors)")
  }

  @Test func `a reader that goes away ends the command`() throws {
    let command = try Command(
      ["emu:82599,wire=generator,rate=1000", "emu:82599,wire=sink", "--json"],
      prefix: ["sh", "-c", "\"$0\" fwd \"$@\" | head -n 1"], in: scratch)
    let result = try command.wait()
    #expect(try Event.all(in: result.output).count == 1)
    #expect(!result.errors.contains("Fatal error"))
  }
}
