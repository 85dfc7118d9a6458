import ArgumentParser
import Emulation

/// The sizes of generated frames, without FCS: `60`, `60-1514` or `imix`.
enum SizePattern: TypedValue {
  /// All of one size, or all sizes of a range in turn.
  case range(ClosedRange<Int>)
  /// The mix that routers are measured with: of twelve frames seven of 60, four of 590, one of 1,514 bytes.
  case imix

  private static let mix = [60, 590, 60, 60, 590, 60, 60, 590, 60, 1514, 590, 60]
  /// A prime: stepping by it one meets every size of a range, and neighbours differ much.
  private static let step = 769

  init(typed text: String) throws {
    if text.lowercased() == "imix" {
      self = .imix
      return
    }
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
    guard ends.count <= 2, let first = ends.first ?? nil, let last = ends.last ?? nil,
      60 <= first, first <= last, last <= 1514
    else { throw ValidationError("give 60 to 1514 bytes, as in 60, 60-1514 or imix.") }
    self = .range(first...last)
  }

  /// The smallest and the largest.
  var limits: ClosedRange<Int> {
    switch self {
    case .range(let range): range
    case .imix: 60...1514
    }
  }

  /// The size of the frame with a number.
  func size(of frame: Int) -> Int {
    switch self {
    case .range(let range):
      range.count == 1
        ? range.lowerBound : range.lowerBound + frame % range.count * Self.step % range.count
    case .imix: Self.mix[frame % Self.mix.count]
    }
  }

  /// The mean size, for rates in bits.
  var mean: Double {
    switch self {
    case .range(let range): Double(range.lowerBound + range.upperBound) / 2
    case .imix: Double(Self.mix.reduce(0, +)) / Double(Self.mix.count)
    }
  }
}
