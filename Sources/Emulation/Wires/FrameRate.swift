/// How fast frames come: frames or bits a second.
public enum FrameRate: Equatable, Sendable {
  /// Frames a second.
  case frames(Double)
  /// Bits a second on the wire, where each frame takes 24 bytes more than its size: FCS, preamble, gap.
  case bits(Double)

  /// The fastest that makes sense: a terabit.
  private static let limit = 1e12

  /// Reads "1Mpps", "14.88Mpps", "500Mbit" or a plain number of frames a second; nil when it is none.
  public init?(_ text: some StringProtocol) {
    let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    let units: [String: (scale: Double, isBits: Bool)] = [
      "": (1, false), "pps": (1, false), "kpps": (1e3, false), "mpps": (1e6, false),
      "gpps": (1e9, false), "bit": (1, true), "kbit": (1e3, true), "mbit": (1e6, true),
      "gbit": (1e9, true),
    ]
    guard let unit = units[text.dropFirst(digits.count).lowercased()],
      let first = digits.first, first != ".", digits.last != ".", let number = Double(digits)
    else { return nil }
    let rate = number * unit.scale
    guard rate > 0, rate <= Self.limit else { return nil }
    self = unit.isBits ? .bits(rate) : .frames(rate)
  }

  /// The frames a second that frames of this size come at.
  public func framesPerSecond(size: Int) -> Double {
    switch self {
    case .frames(let rate): rate
    case .bits(let rate): rate / Double(8 * (size + 24))
    }
  }
}
