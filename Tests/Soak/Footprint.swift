import Glibc

/// What the process holds of the machine, between sessions.
struct Footprint: CustomStringConvertible {
  /// Samples until caches and allocators have what they want.
  private static let warmUp = 20
  /// What may come on top: an allocator's slack.
  private static let slack = 16 << 10

  private var samples = 0
  private var first = Sample()
  private var last = Sample()

  private struct Sample {
    var kilobytes = 0
    var files = 0
    var mappings = 0
  }

  /// Looks at memory, open files and mappings.
  mutating func sample() {
    last = Sample(
      kilobytes: Self.lines(of: "/proc/self/status").compactMap { line in
        line.hasPrefix("VmRSS:") ? Int(line.filter(\.isNumber)) : nil
      }.first ?? 0,
      files: (0..<1024).count { fcntl($0, F_GETFD) >= 0 },
      mappings: Self.lines(of: "/proc/self/maps").count)
    samples += 1
    if samples <= Self.warmUp { first = last }
  }

  /// Whether nothing has grown since the warm-up.
  var isFlat: Bool {
    last.kilobytes <= first.kilobytes + Self.slack && last.files <= first.files
      && last.mappings <= first.mappings + 16
  }

  var description: String {
    "memory \(first.kilobytes) -> \(last.kilobytes) KiB, files \(first.files) -> \(last.files), "
      + "mappings \(first.mappings) -> \(last.mappings)"
  }

  private static func lines(of path: String) -> [Substring] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    if file < 0 { return [] }
    defer { close(file) }
    var text: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 65536)
    while case let count = read(file, &part, part.count), count > 0 { text += part[..<count] }
    return String(decoding: text, as: UTF8.self).split(separator: "\n")
  }
}
