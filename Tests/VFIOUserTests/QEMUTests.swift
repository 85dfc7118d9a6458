import Emulation
import Glibc
import Ixy
import Testing

@testable import VFIOUser

/// What QEMU's client sends, replayed: each reply must be the one that worked, byte for byte.
@Suite struct QEMUTests {
  private let model: ToyModel
  private let server: VFIOUserServer
  private let client: RawClient

  init() throws {
    model = try ToyModel()
    server = try VFIOUserServer(model: model, path: socketPath(), sharesPages: false)
    server.onReport = { report in
      if report.contains("refused") { Issue.record("\(report)") }
    }
    client = try RawClient(server)
    try replay(QEMUTraffic.start)
  }

  /// Sends what `traffic` has, and compares the answers.
  ///
  /// - Returns: Our end of each eventfd that went along.
  @discardableResult
  private func replay(_ traffic: String) throws -> [Int32] {
    // A line that begins with white space continues the one before.
    let lines = traffic.replacing("\n  ", with: "").split(separator: "\n")
    var eventFDs: [Int32] = []
    var answer = ""
    for line in lines {
      let digits = line.split(separator: " ").last ?? ""
      if line.hasPrefix("<...") {
        #expect(answer.hasPrefix(digits))
      } else if line.hasPrefix("<") {
        #expect(answer == digits)
      } else {
        #expect(answer.isEmpty)
        if line.contains("+memory") {
          let memory = makeMemory(256 << 20)
          answer = hex(client.ask(bytes(String(digits)), files: [memory.number]))
        } else if line.contains("+eventfd") {
          let eventFD = makeEventFD()
          answer = hex(client.ask(bytes(String(digits)), files: [eventFD.number]))
          eventFDs.append(dup(eventFD.number))
        } else {
          answer = hex(client.ask(bytes(String(digits))))
        }
        continue
      }
      answer = ""
    }
    #expect(answer.isEmpty)
    return eventFDs
  }

  @Test func `a machine that starts finds all of its memory mapped`() throws {
    // The firmware's ROM came without a file: known, and out of reach.
    #expect(model.dma.count == 1)
    #expect(model.dma.pointer(to: 0, count: 256 << 20, forWriting: true) != nil)
    #expect(model.dma.pointer(to: 0xFFFC_0000, count: 1, forWriting: false) == nil)
    #expect(model.resets == 1)
  }

  @Test func `a reply of the server is not longer than its request`() throws {
    let replies = QEMUTraffic.start.replacing("\n  ", with: "").split(separator: "\n")
    #expect(replies[1].count < replies[0].count)
  }

  @Test func `pieces of low memory follow the firmware`() throws {
    try replay(QEMUTraffic.remapping)
    #expect(model.dma.pointer(to: 0xC3000, count: 0x25000, forWriting: false) != nil)
    #expect(model.dma.pointer(to: 0xC3000, count: 1, forWriting: true) == nil)
    #expect(model.dma.pointer(to: 0xE8000, count: 1, forWriting: true) == nil)
    #expect(model.dma.pointer(to: 0x100000, count: 0xFF00000, forWriting: true) != nil)
  }

  @Test func `huge ranges without a mapping are unmapped with success`() throws {
    try replay(QEMUTraffic.hugeUnmaps)
    #expect(model.dma.count == 1)
  }

  @Test func `each of five vectors has its own eventfd`() throws {
    let eventFDs = try replay(QEMUTraffic.msix).map { OpenFile($0) }
    #expect(eventFDs.count == 5)
    model.interrupts?.signal(.msix, vector: 3)
    model.interrupts?.signal(.msix, vector: 5)
    #expect(eventFDs.map { $0.count() } == [0, 0, 0, 1, 0])
  }

  @Test func `posted writes get no answer`() throws {
    try replay(QEMUTraffic.posted)
    let expected = [(32, 0x100000), (36, 0), (40, 0x180000), (44, 0), (48, 4000), (52, 0)]
    #expect(model.log.suffix(6) == expected.map { "write 0 \($0.0) \($0.1)" }[...])
  }

  @Test func `INTx signals again when it is unmasked while its level is high`() throws {
    let eventFDs = try replay(QEMUTraffic.intx).map { OpenFile($0) }
    #expect(eventFDs.map { $0.count() } == [2])
  }
}
