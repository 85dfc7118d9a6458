import CIxy
import Glibc

/// Some processors of the machine, by the numbers that the kernel gives them.
public struct Cores: Equatable, Sendable, CustomStringConvertible {
  /// The most processors that we look at.
  static let limit = 4096

  /// Their numbers, in ascending order.
  public let numbers: [Int]

  /// These processors; those that cannot be are left out.
  public init(_ numbers: some Sequence<Int>) {
    self.numbers = Set(numbers).filter { 0..<Self.limit ~= $0 }.sorted()
  }

  /// Parses the kernel's way of writing them, `0-3,8`; nil when it is something else or nothing.
  public init?(_ text: some StringProtocol) {
    var numbers: [Int] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { end in
        end.allSatisfy(\.isNumber) ? Int(end) : nil
      }
      guard ends.count <= 2, let first = ends[0], let last = ends[ends.count - 1],
        first <= last, last < Self.limit
      else { return nil }
      numbers += first...last
    }
    self.init(numbers)
  }

  /// Those that the calling thread may use.
  public static var allowed: Cores {
    var bits = [UInt64](repeating: 0, count: limit / 64)
    let bytes = unsafe ixy_get_affinity(&bits, UInt(limit / 8))
    if bytes < 0 { return Cores([0]) }
    return Cores((0..<limit).filter { bits[$0 / 64] >> UInt64($0 % 64) & 1 == 1 })
  }

  /// Those of a NUMA node; nil when there is no such node.
  public static func ofNode(_ node: Int) -> Cores? {
    firstLine(of: "/sys/devices/system/node/node\(node)/cpulist").map { Cores($0) ?? Cores([]) }
  }

  /// Those that are in both.
  public func intersection(_ other: Cores) -> Cores {
    Cores(numbers.filter(other.numbers.contains))
  }

  /// Keeps the calling thread, and the threads that it starts, on these processors.
  ///
  /// - Throws: `DeviceError.refused` when this process may use none of them.
  public func pinThread() throws(DeviceError) {
    var bits = [UInt64](repeating: 0, count: Self.limit / 64)
    for number in numbers { bits[number / 64] |= 1 << UInt64(number % 64) }
    if unsafe ixy_set_affinity(&bits, UInt(Self.limit / 8)) == 0 { return }
    throw .refused(
      "Run on core \(self)", found: "this process may use \(Self.allowed)",
      advice: "Choose some of these, or look at taskset and cgroups.")
  }

  /// As the kernel writes them.
  public var description: String {
    var runs: [ClosedRange<Int>] = []
    for number in numbers {
      if let last = runs.last, last.upperBound + 1 == number {
        runs[runs.count - 1] = last.lowerBound...number
      } else {
        runs.append(number...number)
      }
    }
    return runs.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }
      .joined(separator: ",")
  }
}
