import Foundation
import Testing

@Suite struct BenchTests {
  private struct Result: Decodable {
    let design: String
    let batch: Int
    let ns_per_packet: Double
    let mpps: Double
    let cycles_per_packet: Double
  }

  @Test func `every design is measured at every batch size`() throws {
    let scratch = try Scratch()
    let result = try Command.run("bench", "--seconds", "1", "--json", in: scratch)
    #expect(result.status == 0, "\(result.errors)")
    let results = try result.output.split(separator: "\n").map {
      try JSONDecoder().decode(Result.self, from: Data($0.utf8))
    }
    let cases = [1, 8, 32, 64, 256].flatMap { batch in
      ["batch", "fused", "in-place", "single"].map { "\($0) \(batch)" }
    }
    #expect(results.map { "\($0.design) \($0.batch)" } == cases)
    for result in results {
      // No card is as fast as 10,000 million packets a second: then nothing would have been measured.
      #expect(result.ns_per_packet > 0.1 && result.mpps > 0 && result.cycles_per_packet > 0)
    }
  }

  @Test(arguments: ["0", "10", "x"])
  func `a time that is not 1 to 9 seconds is refused`(seconds: String) throws {
    let scratch = try Scratch()
    let result = try Command.run("bench", "--seconds", seconds, in: scratch)
    #expect(result.status == 64)
  }
}
