import Emulation
import Foundation
import Testing

/// `ixy fwd` and `ixy dump` asleep, on cards that another process serves: their interrupts are eventfds.
@Suite struct SleepTests {
  let scratch: Scratch
  private let one: Cable
  private let two: Cable
  private let server: Command

  init() throws {
    scratch = try Scratch()
    one = try Cable("one", scratch)
    two = try Cable("two", scratch)
    let words = [one, two].flatMap { ["--socket", $0.card, "--wire", $0.words] }
    server = try Command(["emulate", "82599"] + words, in: scratch)
    for path in [one.card, two.card] {
      try server.wait(for: "its socket") { FileManager.default.fileExists(atPath: path) }
    }
  }

  private func forward(_ mode: String) throws -> Command {
    let forwarder = try Command(
      ["fwd", "vfio-user:\(one.card)", "vfio-user:\(two.card)", "--interrupts", mode, "--json"],
      in: scratch)
    try forwarder.wait(for: "its first second") { forwarder.output.contains("stats") }
    return forwarder
  }

  private func end(_ command: Command) throws {
    command.interrupt()
    let result = try command.wait()
    #expect(result.status == 0, "\(result.errors)")
  }

  /// Sends numbered frames, and takes them at the other cable in order.
  private func cross(_ sender: Cable, _ receiver: Cable, _ numbers: Range<Int>) throws {
    for number in numbers { sender.send(testFrame(number)) }
    for number in numbers { try #require(receiver.receive() == testFrame(number)) }
  }

  @Test func `an idle forwarder uses less than 2 percent of a core and still forwards`() throws {
    let forwarder = try forward("auto")
    // The best of three: on a busy machine each waking costs more.
    var used: [Double] = []
    repeat {
      let before = try forwarder.processorTime
      sleep(5)
      used.append(try forwarder.processorTime - before)
    } while used.count < 3 && used.allSatisfy { $0 >= 0.1 }
    #expect(used.contains { $0 < 0.1 }, "\(used) s of 5")
    for number in 0..<3 {
      sleep(1)
      try cross(one, two, number..<number + 1)
      try cross(two, one, number..<number + 1)
    }
    try end(forwarder)
  }

  @Test(arguments: ["auto", "on", "off"])
  func `fwd forwards whether it sleeps or polls`(mode: String) throws {
    let forwarder = try forward(mode)
    for burst in 0..<50 {
      try cross(one, two, burst * 8..<burst * 8 + 8)
      usleep(UInt32(burst * 100))
    }
    try end(forwarder)
  }

  @Test(arguments: ["auto", "on", "off"])
  func `dump captures whether it sleeps or polls`(mode: String) throws {
    let file = scratch.path("capture")
    let dump = try Command(
      [
        "dump", "vfio-user:\(one.card)", "-w", file, "-c", "40", "--interrupts", mode, "--json",
      ], in: scratch)
    try dump.wait(for: "its first second") { dump.output.contains("stats") }
    for number in 0..<40 {
      one.send(testFrame(number))
      usleep(5000)
    }
    let result = try dump.wait()
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: file).map { [UInt8]($0) } == (0..<40).map(testFrame))
  }

  @Test(arguments: ["auto", "off"])
  func `a cable that is pulled out and put in is told`(mode: String) throws {
    let forwarder = try forward(mode)
    one.pull()
    try forwarder.wait(for: "link down") { forwarder.errors.contains("card-one: link down") }
    #expect(!forwarder.errors.contains("card-two"))
    try one.plugIn()
    try forwarder.wait(for: "link up") {
      forwarder.errors.contains("card-one: link up, 10000 Mbit/s")
    }
    try cross(one, two, 0..<8)
    try cross(two, one, 0..<8)
    try end(forwarder)
  }
}

/// The other end of a card's cable.
private final class Cable {
  /// Where the card is served.
  let card: String
  private let (near, far): (String, String)
  private var wire: DatagramWire?

  init(_ name: String, _ scratch: Scratch) throws {
    card = scratch.path("card-\(name)")
    (near, far) = (scratch.path("\(name).near"), scratch.path("\(name).far"))
    try plugIn()
  }

  /// The card's wire, in words.
  var words: String { "dgram,local=\(far),remote=\(near)" }

  func plugIn() throws {
    wire = try DatagramWire(local: near, remote: far)
    wire?.receiverChanged(isOn: true)
  }

  func pull() { wire = nil }

  func send(_ frame: [UInt8]) {
    guard let wire else { return }
    // Waits while the card's socket is full.
    for _ in 0..<10_000 where !wire.canSend { usleep(1000) }
    frame.withUnsafeBytes(wire.send)
  }

  /// The next frame; nil when none comes for 30 seconds.
  func receive() -> [UInt8]? {
    for _ in 0..<30_000 {
      if let frame = wire?.nextFrame() {
        let bytes = [UInt8](frame)
        wire?.takeFrame()
        return bytes
      }
      usleep(1000)
    }
    return nil
  }
}

/// A broadcast frame whose number decides its length and its bytes.
private func testFrame(_ number: Int) -> [UInt8] {
  let head = [UInt8](repeating: 0xFF, count: 6) + [2, 0, 0, 0, 0, 1, 0x88, 0xB5]
  return head + (0..<46 + number * 37 % 1400).map { UInt8(truncatingIfNeeded: number + $0) }
}

extension Command {
  /// The processor time that it has used, in seconds.
  fileprivate var processorTime: Double {
    get throws {
      let text = try String(contentsOfFile: "/proc/\(identifier)/stat", encoding: .utf8)
      // Behind the name in brackets: utime and stime are the 12th and 13th, in ticks.
      let words = try #require(text.split(separator: ")").last).split(separator: " ")
      return try Double(#require(Int(words[11])) + #require(Int(words[12])))
        / Double(sysconf(Int32(_SC_CLK_TCK)))
    }
  }
}
