import Foundation
import Testing

/// What went wrong in other tools, and has no better place (Documentation/what-goes-wrong.md).
@Suite struct LessonTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  @Test func `a touched broadcast frame wraps and does not trap`() throws {
    let (before, after) = (scratch.path("before.pcap"), scratch.path("after.pcap"))
    func number(_ value: UInt32) -> Data { withUnsafeBytes(of: value.littleEndian) { Data($0) } }
    let header: [UInt32] = [0xA1B2_C3D4, 4 << 16 | 2, 0, 0, 65535, 1]
    let record = [0, 0, 60, 60].map(number).reduce(Data(), +) + Data(repeating: 0xFF, count: 60)
    try (header.map(number).reduce(Data(), +) + record).write(to: URL(fileURLWithPath: before))
    let result = try Command.run(
      "fwd", "emu:82599,wire=pcap,in=\(before)", "emu:82599,wire=pcap,out=\(after)", "--touch",
      "--count", "1", "--exit-when-idle", "30s", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    #expect(try frames(of: after) == [Data([0xFF, 0x00] + [UInt8](repeating: 0xFF, count: 58))])
  }

  @Test func `the times of a capture are those of its frames`() throws {
    // Half a second of frames. Once is enough: who gets no processor for so long stamps them all together.
    #expect(try (0..<3).contains { _ in try captureTimes() > 0.3 })
  }

  /// Captures 500 frames, a millisecond apart, and checks their times.
  ///
  /// - Returns: The seconds from the first to the last.
  private func captureTimes() throws -> Double {
    let file = scratch.path("a.pcap")
    let start = Date.now.timeIntervalSince1970
    let result = try Command.run(
      "dump", "emu:82599,wire=generator,rate=1000", "-w", file, "-c", "500", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let times = try shell("tcpdump -ttnr \(file)", in: scratch).split(separator: "\n").compactMap {
      $0.split(separator: " ").first
    }
    .compactMap { Double($0) }
    #expect(times.count == 500)
    let (first, last) = (times.min() ?? 0, times.max() ?? 0)
    #expect(first >= start - 1 && last <= Date.now.timeIntervalSince1970 + 1)
    #expect(times == times.sorted())
    return last - first
  }
}
