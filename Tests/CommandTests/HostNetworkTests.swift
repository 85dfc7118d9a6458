import Foundation
import Testing

/// Whether tap interfaces and network namespaces can be made here.
private let canMakeNetworks =
  canUnshare && FileManager.default.fileExists(atPath: "/dev/net/tun")

/// The forwarder between two emulated cards whose wires are taps, each in a namespace of the host's.
@Suite(
  .serialized, .enabled(if: canMakeNetworks, "needs /dev/net/tun, and root that may make networks"))
struct HostNetworkTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  @Test func `ping loses nothing and 100 MB of TCP arrive`() throws {
    let names = (0..<2).map { "ixyt\($0)\(getpid() % 10_000)" }
    let forwarder = try Command(
      [
        "fwd", "emu:82599,wire=tap,name=\(names[0])", "emu:82599,wire=tap,name=\(names[1])",
        "--json",
      ],
      in: scratch)
    try transfer(over: names, megabytes: 100, forwarder)
  }

  @Test func `the same with both cards served by other processes`() throws {
    let names = (0..<2).map { "ixyv\($0)\(getpid() % 10_000)" }
    let sockets = [scratch.path("a"), scratch.path("b")]
    let servers = try zip(sockets, names).map { socket, name in
      try Command(
        ["emulate", "82599", "--socket", socket, "--wire", "tap,name=\(name)", "--once"],
        in: scratch)
    }
    for (server, socket) in zip(servers, sockets) {
      try server.wait(for: "its socket") { FileManager.default.fileExists(atPath: socket) }
    }
    let forwarder = try Command(
      ["fwd"] + sockets.map { "vfio-user:\($0)" } + ["--json"], in: scratch)
    try transfer(over: names, megabytes: 100, forwarder)
    for server in servers {
      let end = try server.wait()
      #expect(end.status == 0, "\(end.errors)")
    }
  }

  /// Pings that count: a question for an address goes before them, and is given up soon where nobody answers.
  private func pings(_ address: String, from space: String, _ options: String) -> String {
    """
    until ip netns exec \(space) ping -c 1 -W 1 \(address) >&2; do sleep 0.1; done
    ip netns exec \(space) ping \(options) \(address)
    """
  }

  /// Puts each tap into a namespace, pings, and sends random bytes over TCP.
  private func transfer(over taps: [String], megabytes: Int, _ forwarder: Command) throws {
    try forwarder.wait(for: "the taps") {
      taps.allSatisfy { FileManager.default.fileExists(atPath: "/sys/class/net/\($0)") }
    }
    let spaces = taps.map { "ns-\($0)" }
    defer { for space in spaces { _ = try? shell("ip netns del \(space)", in: scratch) } }
    for (i, (tap, space)) in zip(taps, spaces).enumerated() {
      try shell(
        """
        ip netns add \(space)
        ip link set \(tap) netns \(space)
        ip -n \(space) addr add 10.77.0.\(i + 1)/24 dev \(tap)
        ip -n \(space) link set \(tap) up
        """, in: scratch)
    }
    let ping = try shell(pings("10.77.0.2", from: spaces[0], "-c 20 -i 0.05 -W 30"), in: scratch)
    #expect(ping.contains(" 0% packet loss"), "\(ping)")
    let (file, copy) = (scratch.path("file"), scratch.path("copy"))
    try shell("head -c \(megabytes)000000 /dev/urandom >\(file)", in: scratch)
    let receiver = """
      import socket, sys
      s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      s.bind(("", 5001)); s.listen(1); print("ready", flush=True); c = s.accept()[0]
      with open(sys.argv[1], "wb") as f:
        while data := c.recv(1 << 16): f.write(data)
      """
    let sender = """
      import socket, sys
      s = socket.create_connection(("10.77.0.2", 5001), 60)
      s.sendfile(open(sys.argv[1], "rb"))
      """
    try receiver.write(to: scratch.url("receiver.py"), atomically: true, encoding: .utf8)
    try sender.write(to: scratch.url("sender.py"), atomically: true, encoding: .utf8)
    try shell(
      """
      ip netns exec \(spaces[1]) python3 \(scratch.path("receiver.py")) \(copy) \
        >\(scratch.path("ready")) & receiver=$!
      until grep -q ready \(scratch.path("ready")); do sleep 0.05; done
      ip netns exec \(spaces[0]) python3 \(scratch.path("sender.py")) \(file) \
        || { kill $receiver; exit 1; }
      wait $receiver
      cmp \(file) \(copy)
      """, in: scratch)
    forwarder.interrupt()
    let result = try forwarder.wait()
    #expect(result.status == 0, "\(result.errors)")
    let ports = try #require(try Event.all(in: result.output).last?.ports)
    #expect(ports[0].rx_bytes > megabytes * 1_000_000)
    #expect(ports.allSatisfy { $0.rx_errors == 0 })
  }

  @Test func `the host's ping reaches ixy echo`() throws {
    let tap = "ixye\(getpid() % 10_000)"
    let echo = try Command(
      ["echo", "emu:82599,wire=tap,name=\(tap)", "--ip", "10.78.0.2", "--json"], in: scratch)
    try echo.wait(for: "the tap") {
      FileManager.default.fileExists(atPath: "/sys/class/net/\(tap)")
    }
    let space = "ns-\(tap)"
    defer { _ = try? shell("ip netns del \(space)", in: scratch) }
    let ping = try shell(
      """
      ip netns add \(space)
      ip link set \(tap) netns \(space)
      ip -n \(space) addr add 10.78.0.1/24 dev \(tap)
      ip -n \(space) link set \(tap) up
      \(pings("10.78.0.2", from: space, "-c 20 -i 0.05 -W 30 -s 1400"))
      if ip netns exec \(space) ping -c 1 -W 1 10.78.0.3; then exit 1; fi
      """, in: scratch)
    #expect(ping.contains("20 received"), "\(ping)")
    echo.interrupt()
    let result = try echo.wait()
    #expect(result.status == 0, "\(result.errors)")
    // Each request and the questions for our address were answered.
    #expect(try Event.all(in: result.output).last?.ports?[0].tx_packets ?? 0 >= 21)
  }
}
