import Foundation
import Testing

/// `ixy trace`, `ixy info`, `ixy doctor`, and what a running command shows.
@Suite struct InspectTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private struct Step: Decodable {
    struct Ring: Decodable {
      struct Descriptor: Decodable {
        var number: Int
        var bytes: String
      }
      var size: Int
      var head: Int
      var tail: Int
      var changed: [Descriptor]
    }
    var kind: String
    var register: String?
    var section: String?
    var fields: String?
    var line: String?
    var rx: Ring?
    var tx: Ring?
  }

  private func lines<Value: Decodable>(_ type: Value.Type, _ output: String) throws -> [Value] {
    try output.split(separator: "\n").map {
      try JSONDecoder().decode(type, from: Data($0.utf8))
    }
  }

  // MARK: - trace

  @Test func `a trace names every register, with the line of the driver`() throws {
    let result = try Command.run("trace", "--format", "json", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let steps = try lines(Step.self, result.output)
    let accesses = steps.filter { $0.kind != "note" }
    #expect(accesses.count > 60)
    #expect(accesses.first?.register == "EIMC")
    for access in accesses {
      let name = try #require(access.register)
      #expect(!name.hasPrefix("register"), "\(name) has no name")
      #expect(access.section?.hasPrefix("§8") == true)
      #expect(
        access.line?.contains(/^Ixgbe\w*\.swift:\d+$/) == true, "\(name): \(access.line ?? "")")
    }
    let reset = accesses.first { $0.register == "CTRL" && $0.fields?.contains("RST") == true }
    #expect(reset?.section == "§8.2.3.1.1")
  }

  @Test func `the rings turn, and the card reports what it has done`() throws {
    let result = try Command.run("trace", "--format", "json", "--frames", "68", in: scratch)
    let steps = try lines(Step.self, result.output)
    // Both rings have 64 descriptors; after 68 frames they have gone round.
    for ring in [\Step.rx, \Step.tx] {
      let states = steps.compactMap { $0[keyPath: ring] }
      #expect(states.allSatisfy { $0.size == 64 })
      #expect(states.last?.head == 4, "\(states.last?.head ?? -1)")
      #expect(Set(states.flatMap { $0.changed.map(\.number) }) == Set(0..<64))
    }
    // The driver asks for a report on each 32nd frame: DD is bit 0 of the descriptor's last word.
    let reported = steps.compactMap(\.tx).flatMap(\.changed).filter { $0.number == 31 }
    let done = reported.map { Array($0.bytes.utf8)[25] == UInt8(ascii: "1") }
    #expect(done.contains(true) && done.first == false)
  }

  @Test func `the page needs nothing but itself`() throws {
    let result = try Command.run("trace", "--format", "html", in: scratch)
    #expect(result.status == 0)
    #expect(result.output.hasPrefix("<!DOCTYPE html>"))
    #expect(!result.output.contains("http") && !result.output.contains("src="))
    let data = try #require(result.output.firstMatch(of: /const steps = (\[.*\]);/)?.1)
    #expect(try JSONDecoder().decode([Step].self, from: Data(data.utf8)).count > 60)
  }

  @Test func `a trace is for people, too`() throws {
    let result = try Command.run("trace", "emu:x540,wire=loop", "--frames", "1", in: scratch)
    #expect(result.status == 0)
    #expect(result.output.contains("write  CTRL"))
    #expect(result.output.contains("§8.2.3.1.1"))
    #expect(result.output.contains("ENABLE 0→1"))
    #expect(result.output.contains("tx ring of 64: head 1, tail 1"))
  }

  // MARK: - info

  @Test func `info tells what a card is, and decodes its registers`() throws {
    struct Info: Decodable {
      var driver: String
      var mac: String
      var link_mbit: Int
      var msix_vectors: Int?
    }
    let card = "emu:82599,wire=loop,mac=02:00:00:00:00:07"
    let json = try Command.run("info", card, "--json", in: scratch)
    let info = try #require(try lines(Info.self, json.output).first)
    #expect(info.driver == "ixgbe" && info.mac == "02:00:00:00:00:07")
    #expect(info.link_mbit == 10_000 && info.msix_vectors == 64)
    let text = try Command.run("info", card, "--registers", in: scratch).output
    let links = try #require(text.split(separator: "\n").firstIndex { $0.hasPrefix("LINKS ") })
    #expect(text.split(separator: "\n")[links + 1].contains("LINK_SPEED 3, LINK_UP 1"))
  }

  // MARK: - doctor

  /// The files of a machine on which nothing is missing, with a card in group 7 that vfio-pci has.
  private func makeMachine() throws -> String {
    let root = scratch.path("machine-\(UUID().uuidString.prefix(4))")
    let card = "sys/bus/pci/devices/0000:03:00.0"
    try shell(
      """
      mkdir -p \(root) && cd \(root)
      mkdir -p sys/kernel/mm/hugepages/hugepages-2048kB sys/kernel/iommu_groups/7/devices \\
        sys/bus/pci/drivers/vfio-pci sys/bus/pci/drivers/e1000 dev/net dev/vfio \\
        \(card) sys/bus/pci/devices/0000:03:00.1
      echo 512 >sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
      echo 512 >sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages
      touch dev/net/tun dev/vfio/7 dev/vfio/vfio
      echo 0x8086 >\(card)/vendor; echo 0x10fb >\(card)/device; echo -1 >\(card)/numa_node
      ln -s ../../../../bus/pci/drivers/vfio-pci \(card)/driver
      ln -s ../../../../kernel/iommu_groups/7 \(card)/iommu_group
      touch sys/kernel/iommu_groups/7/devices/0000:03:00.0
      """, in: scratch)
    return root
  }

  @Test(arguments: [
    (
      "huge pages", "echo 0 >sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
      "nr_hugepages="
    ),
    ("vfio-pci", "rm -r sys/bus/pci/drivers/vfio-pci", "modprobe vfio-pci"),
    ("card", "rm -r sys/bus/pci/devices/0000:03:00.0", "ixy list"),
    ("card", "echo 0x1234 >sys/bus/pci/devices/0000:03:00.0/device", "ixy list"),
    (
      "kernel driver",
      "ln -sfn ../../../../bus/pci/drivers/e1000 sys/bus/pci/devices/0000:03:00.0/driver",
      "ixy bind"
    ),
    (
      "in use",
      """
      mkdir -p sys/bus/pci/devices/0000:03:00.0/net/eth7
      echo 0x1003 >sys/bus/pci/devices/0000:03:00.0/net/eth7/flags
      """, "ip link set eth7 down"
    ),
    (
      "IOMMU group",
      """
      touch sys/kernel/iommu_groups/7/devices/0000:03:00.1
      ln -s ../../../../bus/pci/drivers/e1000 sys/bus/pci/devices/0000:03:00.1/driver
      """, "ixy bind 0000:03:00.1"
    ),
    ("rights", "rm dev/vfio/7", "ixy bind --user"),
    ("rights", "rm dev/vfio/vfio", "chmod 666 /dev/vfio/vfio"),
  ])
  func `doctor names each thing that is taken away, and what mends it`(
    check: String, take: String, mend: String
  ) throws {
    let root = try makeMachine()
    #expect(try missing(at: root).isEmpty)
    try shell("cd \(root)\n\(take)", in: scratch)
    let missing = try missing(at: root)
    #expect(missing.map(\.check) == [check])
    #expect(missing.first?.mend?.contains(mend) == true, "\(missing)")
  }

  private struct Finding: Decodable {
    var check: String
    var state: String
    var mend: String?
  }

  /// What doctor misses on a machine whose files are at `root`.
  private func missing(at root: String) throws -> [Finding] {
    let result = try Command.run("doctor", "03:00.0", "--json", "--root", root, in: scratch)
    let missing = try lines(Finding.self, result.output).filter { $0.state == "missing" }
    #expect(result.status == (missing.isEmpty ? 0 : 1), "\(result.errors)")
    // How much a process may lock is not in a file: that is of the machine that runs the tests.
    return missing.filter { $0.check != "locked memory" }
  }

  @Test func `doctor looks at this machine`() throws {
    let result = try Command.run("doctor", in: scratch)
    #expect(result.output.contains("huge pages") && result.output.contains("IOMMU"))
    #expect(result.status == (result.output.contains("MISSING") ? 1 : 0))
  }

  // MARK: - What a running command shows

  /// What a forwarder shows on a terminal, until `isDrawn`, and at its end.
  private func screen(
    _ options: String = "", wire: String = "generator", until isDrawn: (String) -> Bool
  ) throws -> String {
    // `script` gives the command a terminal.
    let command = try Command(
      [
        "-qec", "exec \(Command.path) fwd emu:82599,wire=\(wire) emu:82599,wire=sink \(options)",
        "/dev/null",
      ], prefix: ["TERM=xterm"], path: "script", in: scratch)
    try command.wait(for: "its table") { isDrawn(command.output) || !command.isRunning }
    command.interrupt()
    return try command.wait().output
  }

  @Test func `a terminal shows a table that is redrawn`() throws {
    // The second table goes up over the first.
    let text = try screen { $0.contains("\u{1B}[9A") }
    #expect(text.contains("\u{1B}[9A"))
    #expect(text.contains("ring [") && text.contains("lost 0 now"))
  }

  @Test func `each of several queues has its bars`() throws {
    let bars = [
      /queue 0 +in \[[ #]{20}\] +out \[[ #]{20}\]/, /queue 1 +in \[[ #]{20}\] +out \[[ #]{20}\]/,
    ]
    let text = try screen("--queues 2", wire: "generator,flows=9") { text in
      bars.allSatisfy { text.contains($0) }
    }
    #expect(bars.allSatisfy { text.contains($0) })
  }

  /// A forwarder that serves its counters at a port, at another one when that is taken.
  private func serveCounters() throws -> (Command, address: String) {
    var tries = 0
    while true {
      let address = "127.0.0.1:\(Int.random(in: 20_000..<32_000))"
      let command = try Command(
        [
          "fwd", "emu:82599,wire=generator,rate=1000", "emu:82599,wire=sink", "--json", "--metrics",
          address,
        ], in: scratch)
      try command.waitForFrames()
      tries += 1
      if command.isRunning || tries == 5 { return (command, address) }
    }
  }

  @Test func `counters are served to Prometheus`() throws {
    let (command, address) = try serveCounters()
    let sample = /ixy_transmit_packets_total\{port="emu:82599,wire=sink"\} (\d+)/
    var text = ""
    try command.wait(for: "more than 100 frames") {
      text = try shell(
        """
        exec 3<>/dev/tcp/\(address.replacing(":", with: "/"))
        printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3
        cat <&3
        """, in: scratch)
      return try Int(#require(text.firstMatch(of: sample)?.1)) ?? 0 > 100
    }
    #expect(text.hasPrefix("HTTP/1.0 200 OK\r\n"))
    #expect(text.contains("# TYPE ixy_receive_packets_total counter"))
    let second = try Command.run("demo", "--metrics", address, "--duration", "1s", in: scratch)
    #expect(second.status == 1 && second.errors.contains("the port free"), "\(second.errors)")
    #expect(second.output.isEmpty)
    command.interrupt()
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
  }
}
