import Foundation
import Glibc
import Ixy
import Testing

@testable import Emulation

@Suite struct DatagramWireTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func wire(_ local: String, _ remote: String) throws -> DatagramWire {
    let wire = try DatagramWire(local: directory.file(local), remote: directory.file(remote))
    wire.receiverChanged(isOn: true)
    return wire
  }

  /// Sends what is no frame of ours to a wire.
  private func send(_ bytes: [UInt8], to name: String) throws {
    let number = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
    defer { close(number) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: directory.file(name).utf8) }
    let sent = withUnsafePointer(to: address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(number, bytes, bytes.count, 0, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(sent == bytes.count)
  }

  @Test func `frames go both ways whole`() throws {
    let (a, b) = try (wire("a", "b"), wire("b", "a"))
    for size in [60, 61, 1514, 16384] {
      a.send(bytes: frame(1, size: size))
      b.send(bytes: frame(2, size: size))
      #expect(a.take() == frame(2, size: size))
      #expect(b.take() == frame(1, size: size))
    }
    #expect(a.take() == nil)
    #expect(a.counts.received == 4 && a.counts.sent == 4 && a.counts.dropped == 0)
  }

  @Test func `a short frame is padded at both ends`() throws {
    let (a, b) = try (wire("a", "b"), wire("b", "a"))
    a.send(bytes: frame(1, size: 42))
    #expect(b.take() == padded(frame(1, size: 42)))
    try send(frame(2, size: 42), to: "b")
    #expect(b.take() == padded(frame(2, size: 42)))
  }

  @Test func `without a peer there is no link and what is sent is dropped`() throws {
    let a = try wire("a", "b")
    #expect(!a.isConnected)
    for i in 0..<5 {
      #expect(a.canSend)
      a.send(bytes: frame(i, size: 60))
    }
    #expect(a.counts.dropped == 5)
  }

  @Test func `a peer may come late and go`() throws {
    let a = try wire("a", "b")
    #expect(!a.isConnected)
    do {
      let b = try wire("b", "a")
      #expect(waitUntil { a.isConnected })
      a.send(bytes: frame(1, size: 60))
      #expect(b.take() == frame(1, size: 60))
    }
    #expect(waitUntil { !a.isConnected })
    a.send(bytes: frame(2, size: 60))
    #expect(a.counts.dropped == 1)
  }

  @Test func `a card waits while its peer does not read`() throws {
    let (a, b) = try (wire("a", "b"), wire("b", "a"))
    var sent = 0
    while a.canSend {
      a.send(bytes: frame(sent, size: 60))
      sent += 1
    }
    #expect(sent > 1)
    a.send(bytes: frame(99, size: 60))
    #expect(a.counts.dropped == 1)
    var found: [[UInt8]] = []
    while found.count < sent {
      _ = a.canSend
      guard let frame = b.take() else { break }
      found.append(frame)
    }
    #expect(found == (0..<sent).map { frame($0, size: 60) })
    #expect(a.canSend)
  }

  @Test func `the last frame goes when the peer has read though the card sends no more`() throws {
    let (a, b) = try (wire("a", "b"), wire("b", "a"))
    let card = try NIC82599(wire: a, mac: MACAddress(bits: 0x0200_0000_0001))
    var sent: [[UInt8]] = []
    while a.canSend {
      sent.append(frame(sent.count, size: 60))
      a.send(bytes: sent[sent.count - 1])
    }
    var found = b.takeAll()
    #expect(found.count == sent.count - 1)
    _ = card.step()
    found += b.takeAll()
    #expect(found == sent)
  }

  @Test func `what is no frame is dropped`() throws {
    let a = try wire("a", "b")
    try send([], to: "a")
    try send(frame(1, size: 13), to: "a")
    try send(frame(2, size: 60), to: "a")
    try send([UInt8](repeating: 1, count: 1 << 17), to: "a")
    #expect(a.takeAll() == [frame(2, size: 60)])
    #expect(a.counts.dropped == 3)
  }

  @Test func `a long frame is given to the card to judge`() throws {
    let a = try wire("a", "b")
    try send(frame(1, size: 65_000), to: "a")
    #expect(a.take() == frame(1, size: 65_000))
  }

  @Test func `nothing is read before there is a receiver`() throws {
    let a = try DatagramWire(local: directory.file("a"), remote: directory.file("b"))
    try send(frame(1, size: 60), to: "a")
    #expect(a.nextFrame() == nil)
    a.receiverChanged(isOn: true)
    #expect(a.take() == frame(1, size: 60))
  }

  @Test func `the descriptor says when a frame is there`() throws {
    let a = try wire("a", "b")
    var entry = pollfd(fd: try #require(a.readiness), events: Int16(POLLIN), revents: 0)
    #expect(poll(&entry, 1, 0) == 0)
    try send(frame(1, size: 60), to: "a")
    #expect(poll(&entry, 1, 0) == 1)
  }

  @Test func `the socket's file goes with the wire`() throws {
    let path = directory.file("a")
    do {
      let a = try wire("a", "b")
      #expect(exists(path))
      a.close()
      #expect(!exists(path))
    }
    do {
      _ = try wire("a", "b")
    }
    #expect(!exists(path))
  }

  @Test func `a file that replaced the socket stays`() throws {
    let a = try wire("a", "b")
    unlink(directory.file("a"))
    let path = try directory.file("a", [1])
    a.close()
    #expect(exists(path))
  }

  @Test func `a socket that a dead process left is replaced`() throws {
    let path = directory.file("a")
    do {
      let a = try wire("a", "b")
      // The name moves away and back, so that the wire does not find its own file.
      rename(path, path + ".kept")
      a.close()
    }
    rename(path + ".kept", path)
    #expect(exists(path))
    // A child that another test is just starting may have the dead socket still.
    var found: DatagramWire?
    let isTaken = waitUntil {
      found = try? wire("a", "b")
      return found != nil
    }
    #expect(isTaken)
    let a = try #require(found)
    try send(frame(1, size: 60), to: "a")
    #expect(a.take() == frame(1, size: 60))
  }

  @Test func `a socket in use is refused`() throws {
    let a = try wire("a", "b")
    #expect(message { _ = try wire("a", "b") }.contains("another process has it"))
    let stream = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(stream) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: directory.file("s").utf8) }
    let bound = withUnsafePointer(to: address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(stream, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(bound == 0 && listen(stream, 1) == 0)
    #expect(message { _ = try wire("s", "b") }.contains("another process has it"))
    #expect(exists(directory.file("s")))
    #expect(a.counts.dropped == 0)
  }

  @Test func `paths that cannot be are refused`() throws {
    let file = try directory.file("file", [1])
    #expect(message { _ = try wire("file", "b") }.contains("a file is there that is no socket"))
    #expect(try bytes(of: file) == [1])
    #expect(message { _ = try wire("no/a", "b") }.contains("No such file or directory"))
    let long = String(repeating: "x", count: 108)
    #expect(message { _ = try DatagramWire(local: long, remote: "b") }.contains("it has 108 bytes"))
    #expect(message { _ = try wire("a", long) }.contains("The system allows 1 to 107"))
    #expect(!exists(directory.file("a")))
  }

  private static let qemu = program("qemu-system-x86_64")

  @Test(.enabled(if: qemu != nil, "qemu-system-x86_64 is not installed"))
  func `QEMU's dgram passes our frames on`() throws {
    let (a, b) = try (wire("a", "qemu-a"), wire("b", "qemu-b"))
    var arguments = ["-M", "none", "-display", "none", "-nodefaults"]
    // A hub with two sockets: QEMU itself is the cable.
    for name in ["a", "b"] {
      let local = "local.type=unix,local.path=\(directory.file("qemu-" + name))"
      let remote = "remote.type=unix,remote.path=\(directory.file(name))"
      arguments += [
        "-netdev", "dgram,id=\(name),\(local),\(remote)",
        "-netdev", "hubport,id=hub-\(name),hubid=0,netdev=\(name)",
      ]
    }
    let process = try start(#require(Self.qemu), arguments, output: 2)
    defer {
      kill(process, SIGKILL)
      waitpid(process, nil, 0)
    }
    #expect(waitUntil { a.isConnected && b.isConnected })
    // One after the other: QEMU's hub changes the order when a socket behind it is full.
    for i in 0..<200 {
      let size = [60, 61, 1514, 9000][i % 4]
      a.send(bytes: frame(i, size: size))
      #expect(waitUntil { b.nextFrame() != nil })
      #expect(b.take() == frame(i, size: size))
    }
    #expect(a.counts.dropped == 0)
    b.send(bytes: frame(7, size: 42))
    #expect(waitUntil { a.nextFrame() != nil })
    #expect(a.take() == padded(frame(7, size: 42)))
  }
}
