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
    struct Finding: Decodable {
      var check: String
      var state: String
      var mend: String?
    }
    let root = try makeMachine()
    let well = try Command.run("doctor", "03:00.0", "--json", "--root", root, in: scratch)
    #expect(well.status == 0, "\(well.output)\(well.errors)")
    try shell("cd \(root)\n\(take)", in: scratch)
    let result = try Command.run("doctor", "03:00.0", "--json", "--root", root, in: scratch)
    #expect(result.status == 1)
    let missing = try lines(Finding.self, result.output).filter { $0.state == "missing" }
    #expect(missing.map(\.check) == [check])
    #expect(missing.first?.mend?.contains(mend) == true, "\(missing)")
  }

  @Test func `doctor looks at this machine`() throws {
    let result = try Command.run("doctor", in: scratch)
    #expect(result.output.contains("huge pages") && result.output.contains("IOMMU"))
    #expect(result.status == (result.output.contains("MISSING") ? 1 : 0))
  }

  // MARK: - What a running command shows

  @Test func `a terminal shows a table that is redrawn`() throws {
    // `script` gives the command a terminal.
    let text = try shell(
      """
      TERM=xterm timeout 60 script -qec '\(Command.path) fwd emu:82599,wire=generator \\
        emu:82599,wire=sink --duration 3s' /dev/null </dev/null
      """, in: scratch)
    #expect(text.contains("ring [") && text.contains("lost 0 now"))
    // The second table goes up over the first.
    #expect(text.contains("\u{1B}[9A"))
  }

  @Test func `each of several queues has its bars`() throws {
    let text = try shell(
      """
      TERM=xterm timeout 60 script -qec '\(Command.path) fwd emu:82599,wire=generator,flows=9 \
        emu:82599,wire=sink --queues 2 --duration 2s' /dev/null </dev/null
      """, in: scratch)
    #expect(text.contains(/queue 0 +in \[[ #]{20}\] +out \[[ #]{20}\]/))
    #expect(text.contains(/queue 1 +in \[[ #]{20}\] +out \[[ #]{20}\]/))
  }

  @Test func `counters are served to Prometheus`() throws {
    let port = 20_000 + Int(getpid()) % 20_000
    let command = try Command(
      [
        "fwd", "emu:82599,wire=generator,rate=1000", "emu:82599,wire=sink", "--json", "--metrics",
        "127.0.0.1:\(port)",
      ], in: scratch)
    try command.wait(for: "two reports") {
      command.output.split(separator: "\n").count >= 2 || !command.isRunning
    }
    let text = try shell(
      """
      exec 3<>/dev/tcp/127.0.0.1/\(port)
      printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3
      cat <&3
      """, in: scratch)
    let second = try Command.run(
      "demo", "--metrics", "127.0.0.1:\(port)", "--duration", "1s", in: scratch)
    #expect(second.status == 1 && second.errors.contains("the port free"), "\(second.errors)")
    #expect(second.output.isEmpty)
    command.interrupt()
    #expect(try command.wait(seconds: 10).status == 0, "\(command.errors)")
    #expect(text.hasPrefix("HTTP/1.0 200 OK\r\n"))
    #expect(text.contains("# TYPE ixy_receive_packets_total counter"))
    let sample = /ixy_transmit_packets_total\{port="emu:82599,wire=sink"\} (\d+)/
    #expect(Int(try #require(text.firstMatch(of: sample)?.1)) ?? 0 > 100)
  }
}
