import Foundation
import Ixy

// What guests ask of a card that `ixy` has no command for: filters and queues one by one, and how often it
// can be opened. The scenarios in VM/scenarios/nics.py say what the answers must be.

do {
  let words = CommandLine.arguments
  guard words.count > 2, let address = PCIAddress(words[2]) else {
    throw Complaint("nictest receive|echo|reopen CARD OPTION...")
  }
  let options = Options(words.dropFirst(3))
  switch words[1] {
  case "receive": try receive(address, options)
  case "echo": try echo(address, options)
  case "reopen": try reopen(address, options)
  default: throw Complaint("\(words[1]): no such test")
  }
} catch {
  say("ERROR \(error)")
  exit(1)
}

/// Prints a line at once, for whoever reads a file.
func say(_ line: String) {
  print(line)
  fflush(nil)
}

struct Complaint: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// `--name value` for each option.
struct Options {
  private var values: [String: String] = [:]

  init(_ words: some Sequence<String>) {
    var name: String?
    for word in words {
      if let known = name { (values[known], name) = (word, nil) } else { name = word }
    }
  }

  func number(_ name: String, _ otherwise: Int) -> Int {
    values[name].flatMap { Int($0) } ?? otherwise
  }

  /// The parts of a list with commas; nil when the option was not given.
  func list(_ name: String) -> [String]? { values[name]?.split(separator: ",").map(String.init) }
}

/// A card with the queues that were asked for, in a domain of its own.
func open(_ address: PCIAddress, _ options: Options) throws -> (DMADomain, any EthernetDevice) {
  var configuration = DeviceConfiguration()
  configuration.receiveQueues = options.number("--queues", 1)
  configuration.transmitQueues = configuration.receiveQueues
  configuration.mtu = options.number("--mtu", configuration.mtu)
  let domain = DMADomain()
  let card = try openCard(address, domain: domain)
  return (domain, try openDevice(card, domain: domain, configuration: configuration))
}

func waitForLink(_ device: any EthernetDevice) throws {
  for _ in 0..<1000 {
    if try device.link().isUp { return }
    usleep(10_000)
  }
  throw Complaint("there is no link after 10 s")
}

// MARK: - receive

/// Receives until a frame of type 0x88B6 comes, and prints each other frame: queue, hash, and its number, the
/// four bytes after the Ethernet header and a VLAN tag.
func receive(_ address: PCIAddress, _ options: Options) throws {
  let (domain, device) = try open(address, options)
  let count = device.queueCounts.receive
  let pool = try Mempool(domain: domain, buffers: 512 * (count + 1))
  try setFilters(of: device, options)
  if count == 1 {
    var queue = try device.receiveQueue(0, mempool: pool)
    try waitForLink(device)
    try show { batch, _ in try queue.receive(into: &batch, max: 64) }
  } else {
    var first = try device.receiveQueue(0, mempool: pool)
    var second = try device.receiveQueue(1, mempool: pool)
    try waitForLink(device)
    try show { batch, id in
      try id == 0 ? first.receive(into: &batch, max: 64) : second.receive(into: &batch, max: 64)
    }
  }
  say("ADDRESS \(device.macAddress)")
  say("STATISTICS \(device.statistics())")

  /// Looks at all queues in turn.
  func show(_ look: (inout PacketBatch, Int) throws -> Int) throws {
    var batch = PacketBatch(capacity: 64)
    var lines: [String] = []
    var end: ContinuousClock.Instant?
    say("READY")
    while end.map({ ContinuousClock.now < $0 }) ?? true {
      for id in 0..<count where try look(&batch, id) > 0 {
        while let packet = batch.popFirst() {
          let start = packet[12] == 0x81 && packet[13] == 0 ? 18 : 14
          let kind = Int(packet[start - 2]) << 8 | Int(packet[start - 1])
          let number = (0..<4).reduce(0) { $0 << 8 | Int(packet[start + $1]) }
          // Frames that came before it may still be in other rings.
          if kind == 0x88B6 { end = .now + .milliseconds(300) }
          if kind == 0x88B5 || kind == 0x0800 { lines.append("\(id):\(packet.hash):\(number)") }
        }
      }
    }
    say("FRAMES \(lines.joined(separator: " "))")
  }
}

func setFilters(of device: any EthernetDevice, _ options: Options) throws {
  try device.setPromiscuous(options.number("--promiscuous", 0) == 1)
  guard let filter = device as? any FrameFilter else { return }
  if let address = options.list("--mac")?.first.flatMap({ MACAddress($0) }) {
    try filter.setMACAddress(address)
  }
  if let groups = options.list("--groups") {
    try filter.setMulticast(groups.compactMap { MACAddress($0) })
  }
  if let vlans = options.list("--vlans") { try filter.setVLANs(vlans.compactMap { Int($0) }) }
}

// MARK: - echo

/// Sends each frame back until one of type 0x88B6 has come.
///
/// The buffers of the pool have the usual size, also where the MTU is larger than they are.
func echo(_ address: PCIAddress, _ options: Options) throws {
  let (domain, device) = try open(address, options)
  let pool = try Mempool(domain: domain, buffers: 1024)
  var receiver = try device.receiveQueue(0, mempool: pool)
  var transmitter = try device.transmitQueue(0)
  try device.setPromiscuous(true)
  try waitForLink(device)
  var batch = PacketBatch(capacity: 64)
  var isOver = false
  say("READY \(device.name)")
  while try transmitter.reclaim() > 0 || !isOver {
    _ = try receiver.receive(into: &batch, max: 64)
    batch.forEach { if $0[12] == 0x88, $0[13] == 0xB6 { isOver = true } }
    while !batch.isEmpty { _ = try transmitter.transmit(&batch) }
  }
  say("STATISTICS \(device.name) \(device.statistics())")
}

// MARK: - reopen

/// Opens, uses and closes a card many times; what the process holds afterwards must be what it held after
/// the first round.
func reopen(_ address: PCIAddress, _ options: Options) throws {
  let rounds = options.number("--rounds", 50)
  var before: Holdings?
  for round in 1...rounds {
    // Some cards negotiate for a while: the link is not waited for in each round.
    try openOnce(address, options, sends: round % 10 == 1)
    if round == 2 { before = Holdings() }
  }
  let after = Holdings()
  say("HELD after 2: \(before ?? after), after \(rounds): \(after)")
  if let before, before != after { throw Complaint("something leaks") }
  say("REOPENED \(rounds)")
}

func openOnce(_ address: PCIAddress, _ options: Options, sends: Bool) throws {
  let (domain, device) = try open(address, options)
  // Over sysfs there are none.
  _ = try? device.enableInterrupts(throttle: .microseconds(20))
  let pool = try Mempool(domain: domain, buffers: 1024)
  do {
    let receiver = try device.receiveQueue(0, mempool: pool)
    var transmitter = try device.transmitQueue(0)
    if sends {
      try waitForLink(device)
      try sendOnce(by: &transmitter, pool)
    }
    _ = consume receiver
  }
  if pool.available != pool.capacity {
    throw Complaint("\(pool.capacity - pool.available) buffers are lost")
  }
  device.stop()
}

func sendOnce(by queue: inout any TransmitQueue & ~Copyable, _ pool: Mempool) throws {
  guard var packet = pool.packet(length: 60) else { throw Complaint("the pool is empty") }
  for i in 0..<60 { packet[i] = UInt8(i < 6 ? 0xFF : i < 12 ? 2 : i == 12 ? 0x88 : 0xB5) }
  if try queue.transmit(packet) != nil { throw Complaint("an empty ring is full") }
  let deadline = ContinuousClock.now + .seconds(10)
  while try queue.reclaim() > 0 {
    if ContinuousClock.now > deadline { throw Complaint("a frame is not sent") }
  }
}

/// What a process holds that a driver may forget to give back.
struct Holdings: Equatable {
  let files = names(in: "/proc/self/fd")
  let mappings = lines(of: "/proc/self/maps").count { !$0.hasSuffix("[heap]") }
  let freeHugePages = lines(of: "/proc/meminfo").first { $0.hasPrefix("HugePages_Free") } ?? ""
  let children = lines(of: "/proc/self/task/\(getpid())/children").joined().split(separator: " ")
    .count

  private static func names(in folder: String) -> Int {
    (try? FileManager.default.contentsOfDirectory(atPath: folder).count) ?? -1
  }

  private static func lines(of file: String) -> [Substring] {
    (try? String(contentsOfFile: file, encoding: .utf8))?.split(separator: "\n") ?? []
  }
}
