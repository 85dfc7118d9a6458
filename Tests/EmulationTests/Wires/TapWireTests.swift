import CIxy
import Foundation
import Glibc
import Ixy
import Testing

@testable import Emulation

/// Whether this process may make interfaces: by a trial, since root alone does not say so.
private let canMakeTaps =
  program("ip").flatMap { ip in
    program("unshare").flatMap {
      try? run($0, "-n", ip, "tuntap", "add", "ixytest0", "mode", "tap")
    }
  } != nil
private let missing: Comment =
  "needs the right to make a network namespace and a tap (root, CAP_SYS_ADMIN, /dev/net/tun), ip and unshare"

/// What a thread does, and what came of it.
private final class Job: @unchecked Sendable {
  let body: () throws -> Any
  var result: Result<Any, any Error>?

  init(_ body: @escaping () throws -> Any) { self.body = body }
}

/// Runs `body` on a thread in a network namespace of its own, which is gone afterwards.
private func inOwnNetwork<Result>(_ body: @escaping () throws -> Result) throws -> Result {
  // Glibc's declaration hides behind a macro that the importer does not set.
  typealias Unshare = @convention(c) (Int32) -> Int32
  let unshare = unsafeBitCast(try #require(dlsym(nil, "unshare")), to: Unshare.self)
  let job = Job {
    guard unshare(0x4000_0000) == 0 else { throw POSIXError(.EPERM) }
    return try body()
  }
  let thread = Thread { job.result = .init { try job.body() } }
  thread.start()
  try #require(waitUntil(seconds: 600) { thread.isFinished }, "what it does has no end")
  let result = try #require(job.result)
  return try #require(try result.get() as? Result)
}

@Suite(.enabled(if: canMakeTaps, missing)) struct TapWireTests {
  private let ip = program("ip") ?? ""
  private let own: [UInt8] = [0x02, 0, 0, 0, 0, 1]

  /// What the interface has as an address, in our namespace.
  private func configure(_ wire: TapWire) throws {
    try run(ip, "addr", "add", "10.9.8.1/24", "dev", wire.name)
    try run(ip, "link", "set", wire.name, "arp", "on")
  }

  /// Who has 10.9.8.1? Tell 10.9.8.2.
  private var question: [UInt8] {
    [UInt8](repeating: 0xFF, count: 6) + own + [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1] + own
      + [10, 9, 8, 2] + [UInt8](repeating: 0, count: 6) + [10, 9, 8, 1]
  }

  private func isAnswer(_ frame: [UInt8]) -> Bool {
    frame.count == 60 && Array(frame[0..<6]) == own && Array(frame[12..<14]) == [0x08, 0x06]
      && Array(frame[20..<22]) == [0, 2] && Array(frame[28..<32]) == [10, 9, 8, 1]
  }

  @Test func `the kernel answers ARP over the wire`() throws {
    let result = try inOwnNetwork { () -> (Bool, Bool, WireCounts) in
      let wire = try TapWire(name: "ixytest0")
      try configure(wire)
      wire.receiverChanged(isOn: true)
      wire.send(bytes: question)
      let hasAnswer = waitUntil { wire.take().map(isAnswer) ?? false }
      let flags = try run(ip, "link", "show", "ixytest0")
      return (hasAnswer, flags.contains("UP"), wire.counts)
    }
    #expect(result.0)
    #expect(result.1)
    #expect(result.2.received == 1 && result.2.sent >= 1 && result.2.dropped == 0)
  }

  @Test func `the descriptor says when a frame is there`() throws {
    let found = try inOwnNetwork { () -> Bool in
      let wire = try TapWire(name: nil)
      try configure(wire)
      wire.receiverChanged(isOn: true)
      // What the kernel says by itself at first.
      _ = wire.takeAll()
      wire.send(bytes: question)
      var entry = pollfd(fd: wire.readiness ?? -1, events: Int16(POLLIN), revents: 0)
      return poll(&entry, 1, 60_000) == 1 && wire.take() != nil
    }
    #expect(found)
  }

  @Test func `frames that the kernel drops are counted`() throws {
    let result = try inOwnNetwork { () -> (sent: UInt64, kept: Int, dropped: UInt64) in
      let wire = try TapWire(name: "ixytest0")
      try configure(wire)
      // Nobody receives, so that the kernel's queue of 8,192 fills.
      for i in 0..<9000 {
        var frame = question
        // Each asks for another one, so that no answer is held back.
        frame[31] = UInt8(2 + i % 250)
        wire.send(bytes: frame)
      }
      wire.receiverChanged(isOn: true)
      return (
        wire.counts.received, wire.takeAll().filter { $0[13] == 6 }.count, wire.counts.dropped
      )
    }
    #expect(result.sent == 9000)
    #expect(result.kept > 7000)
    #expect(result.dropped > 0)
    // Other frames of the kernel's may be among the dropped ones.
    #expect(result.kept + Int(result.dropped) >= 9000)
  }

  @Test func `a frame for an interface that is down is dropped`() throws {
    let counts = try inOwnNetwork { () -> WireCounts in
      let wire = try TapWire(name: "ixytest0")
      try run(ip, "link", "set", "ixytest0", "down")
      wire.send(bytes: question)
      return wire.counts
    }
    // The kernel may drop frames of its own besides.
    #expect(counts.received == 1 && counts.dropped >= 1)
  }

  @Test func `a deleted interface takes the link down`() throws {
    let (before, after, text) = try inOwnNetwork { () -> (Bool, Bool, String) in
      let wire = try TapWire(name: "ixytest0")
      wire.receiverChanged(isOn: true)
      let before = wire.isConnected
      try run(ip, "link", "del", "ixytest0")
      wire.send(bytes: question)
      _ = wire.nextFrame()
      return (before, wire.isConnected, message { try wire.close() })
    }
    #expect(before && !after)
    #expect(text.contains("ixytest0: it was deleted meanwhile"), "\(text)")
  }

  @Test func `the interface goes with the wire`() throws {
    let (during, isGone) = try inOwnNetwork { () -> (String, Bool) in
      var wire: TapWire? = try TapWire(name: "ixytest0")
      let during = try withExtendedLifetime(wire) { try run(ip, "link") }
      wire = nil
      // Not at once where a child of another test, which is just being started, has it, too.
      return (during, try waitUntil { try !run(ip, "link").contains("ixytest0") })
    }
    #expect(during.contains("ixytest0"))
    #expect(isGone)
  }

  @Test func `an interface that is there is taken if it is a tap`() throws {
    let result = try inOwnNetwork { () -> (String, String, String, String) in
      try run(ip, "tuntap", "add", "ixytest0", "mode", "tap")
      try run(ip, "tuntap", "add", "ixytest1", "mode", "tun")
      let first = try TapWire(name: "ixytest0")
      let busy = message { _ = try TapWire(name: "ixytest0") }
      let foreign = message { _ = try TapWire(name: "ixytest1") }
      let loopback = message { _ = try TapWire(name: "lo") }
      return (first.name, busy, foreign, loopback)
    }
    #expect(result.0 == "ixytest0")
    #expect(result.1.contains("busy") && result.1.contains("give another name"), "\(result.1)")
    #expect(result.2.contains("no tap"), "\(result.2)")
    #expect(result.3.contains("no tap"), "\(result.3)")
  }

  @Test func `without a name the kernel chooses one`() throws {
    let names = try inOwnNetwork { () -> [String] in
      let wires = [try TapWire(name: nil), try TapWire(name: nil)]
      return wires.map(\.name)
    }
    #expect(names == ["ixy0", "ixy1"])
  }

  @Test func `without the right to it the message says what to do`() throws {
    let text = try inOwnNetwork { () -> String in
      // Only of this thread: all its capabilities.
      typealias Capset = @convention(c) (UnsafePointer<UInt32>, UnsafePointer<UInt32>) -> Int32
      let capset = unsafeBitCast(try #require(dlsym(nil, "capset")), to: Capset.self)
      let version: [UInt32] = [0x2008_0522, 0]
      try #require(capset(version, [0, 0, 0, 0, 0, 0]) == 0)
      return message { _ = try TapWire(name: "ixytest0") }
    }
    #expect(text.contains("Operation not permitted"), "\(text)")
    #expect(text.contains("sudo ip tuntap add ixytest0 mode tap user $USER"), "\(text)")
  }
}
