import ArgumentParser
import Emulation
import Foundation
import Ixy

/// The command `ixy dump CARD`.
struct DumpCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dump",
    abstract: "Prints or captures what comes, as tcpdump does.",
    discussion: """
      FILTER is an expression of libpcap's language, as in: ixy dump CARD tcp port 80
      With -C alone, files are called FILE, FILE1, ...; with -W too FILE0 to FILE9, and then FILE0 again.
      With -G the name is a pattern for strftime, as in: -G 60 -w %H%M%S.pcap
      """)

  @Argument(help: "A card; ixy --help has the forms.") var card: CardName
  @Argument(help: "Which frames, in libpcap's language; all if not given.") var filter: [String] =
    []

  @Option(
    name: .short,
    help: .init(
      "Write to this file; - is standard output. Without it, lines are printed.",
      valueName: "file"))
  var writeFile: String?
  @Option(help: "pcap or pcapng; what the file's name ends with if not given.")
  var format: CaptureFormat?
  @Option(
    name: .customShort("C"), in: 1...1_000_000,
    help: .init("Go on in another file after so many million bytes.", valueName: "size"))
  var fileSize: Int?
  @Option(
    name: .customShort("G"), in: 1...1_000_000_000,
    help: .init("Go on in another file after so many seconds.", valueName: "seconds"))
  var fileSeconds: Int?
  @Option(
    name: .customShort("W"), in: 1...1_000_000,
    help: .init("With -C: begin again after so many files. With -G: end.", valueName: "files"))
  var fileCount: Int?
  @Option(
    name: .short, in: 1...Int.max, help: .init("Ends after so many frames.", valueName: "count"))
  var count: Int?
  @Option(
    name: [.customShort("s"), .customLong("snaplen")], in: 1...CaptureFormat.longestFrame,
    help: "The most bytes kept of a frame.")
  var snapLength = CaptureFormat.longestFrame

  @Flag(name: [.customShort("p"), .long], help: "Receives only frames for this card.")
  var noPromiscuous = false
  @Flag(name: .customLong("print"), help: "Print lines although frames go to a file.")
  var alsoPrints = false
  @Flag(name: .customShort("e"), help: "Print the Ethernet header, too.") var showsLink = false
  @Flag(name: .customShort("t"), help: "Print no times.") var hidesTime = false
  @Flag(name: .customShort("x"), help: "Print the bytes of each frame behind its Ethernet header.")
  var showsBytes = false

  @Option(help: "Ends after this time, as in 5s.") var duration: Duration?
  @Option(help: "Ends when no frame came for this time, counted from link up.")
  var exitWhenIdle: Duration?
  @Option(in: 68...9582, help: "The longest payload of a frame in bytes (68 to 9582).")
  var mtu = 1500
  @OptionGroup var interruptOptions: InterruptOptions
  @OptionGroup var metricsOptions: MetricsOptions
  @OptionGroup var cardOptions: CardOptions

  func validate() throws {
    if fileSize != nil || fileSeconds != nil || fileCount != nil, writeFile ?? "-" == "-" {
      throw ValidationError("-C, -G and -W go with -w FILE.")
    }
    if fileSeconds != nil, writeFile?.contains("%") == false {
      throw ValidationError("With -G the name needs the time, as in -w %H%M%S.pcap.")
    }
    if fileCount != nil, fileSize == nil, fileSeconds == nil {
      throw ValidationError("-W goes with -C or -G.")
    }
  }

  func run() throws {
    StopSignal.install()
    // All that can be wrong with the arguments, before a card is touched.
    let program = filter.isEmpty ? nil : try FilterCompiler.compile(filter.joined(separator: " "))
    var configuration = DeviceConfiguration()
    configuration.mtu = mtu
    // What comes while the file grows waits here.
    configuration.ringEntries = 4096
    let files = try openFiles()
    let bench = CardBench(cardOptions)
    let device = try bench.open([card], configuration)[0]
    try files?.start()
    try device.setPromiscuous(!noPromiscuous)
    let pool = try Mempool(
      domain: bench.domain, buffers: 8192, bufferSize: configuration.bufferSize)
    let printer = FramePrinter(
      decoder: FrameDecoder(showsLink: showsLink), showsTime: !hidesTime, showsBytes: showsBytes)
    var target = CaptureTarget(
      filter: program, files: files, printer: files == nil || alsoPrints ? printer : nil,
      left: count)
    // Standard output belongs to the frames when they go there.
    let isBusy = target.printer != nil || writeFile == "-"
    let reporter = Reporter([Port(device)], json: cardOptions.json) { line in
      if isBusy { tell(line) } else { output(line) }
    }
    try reporter.serveMetrics(at: metricsOptions.metrics)
    try bench.waitForLinks()
    var limits = Limits(duration: duration, idle: exitWhenIdle)
    var watch = try CardWatch(interruptOptions.interrupts, bench)
    do {
      try capture(device, pool, into: &target, &watch, &limits, reporter)
    } catch {
      reporter.finish()
      // What was captured stays a valid file; when that is the trouble, it has more to say.
      try files?.close()
      throw error
    }
    reporter.finish()
    try files?.close()
    try bench.close()
  }

  private func openFiles() throws -> CaptureFiles? {
    guard let writeFile else { return nil }
    let rotation = CaptureRotation(
      size: fileSize.map { $0 * 1_000_000 }, seconds: fileSeconds, files: fileCount)
    let format = format ?? (writeFile.hasSuffix(".pcapng") ? .pcapng : .pcap)
    return try CaptureFiles(
      path: writeFile, format: format, snapLength: snapLength, rotation: rotation)
  }

  private func capture(
    _ device: any EthernetDevice, _ pool: Mempool, into target: inout CaptureTarget,
    _ watch: inout CardWatch, _ limits: inout Limits, _ reporter: Reporter
  ) throws {
    var queue = try device.receiveQueue(0, mempool: pool)
    var batch = PacketBatch(capacity: 64)
    try poll(&watch, &limits, reporter) { limits in
      let received = try queue.receive(into: &batch, max: 64)
      if received == 0 { return 0 }
      // One reading of the clock a batch: it costs as much as a packet.
      let time = nanosecondsSince1970()
      batch.forEach { packet in
        unsafe packet.contents.withUnsafeBytes { unsafe target.take($0, at: time) }
      }
      batch.removeAll()
      try target.flush()
      if target.isOver { limits.left = 0 }
      return received
    }
  }
}

/// What becomes of frames that were received.
struct CaptureTarget {
  let filter: FilterProgram?
  let files: CaptureFiles?
  var printer: FramePrinter?
  /// Frames still to be taken; nil is no limit.
  var left: Int?

  /// Whether all frames that were wanted are there.
  var isOver: Bool { left == 0 || files?.isOver ?? false }

  /// Takes a frame, if it passes the filter.
  mutating func take(_ frame: UnsafeRawBufferPointer, at time: UInt64) {
    if left == 0 { return }
    if let filter, unsafe !filter.accepts(frame) { return }
    if let left { self.left = left - 1 }
    unsafe files?.append(frame, at: time)
    unsafe printer?.add(frame, at: time)
  }

  /// Shows what came, and throws what went wrong with the file.
  mutating func flush() throws {
    files?.flush()
    printer?.flush()
    if let failure = files?.failure { throw failure }
  }
}

/// Prints frames as lines, a batch at a time.
struct FramePrinter {
  let decoder: FrameDecoder
  let showsTime: Bool
  let showsBytes: Bool
  private var text = ""

  init(decoder: FrameDecoder, showsTime: Bool, showsBytes: Bool) {
    self.decoder = decoder
    self.showsTime = showsTime
    self.showsBytes = showsBytes
  }

  mutating func add(_ frame: UnsafeRawBufferPointer, at time: UInt64) {
    let bytes = unsafe Array(frame)
    text += (showsTime ? Self.clock(time) + " " : "") + decoder.line(bytes) + "\n"
    if showsBytes { text += Self.dump(bytes.dropFirst(14)) }
  }

  /// Prints what was added.
  mutating func flush() {
    if text.isEmpty { return }
    output(String(text.dropLast()))
    text = ""
  }

  /// The time of day: `15:04:05.123456`.
  private static func clock(_ time: UInt64) -> String {
    var (seconds, parts) = unsafe (time_t(time / 1_000_000_000), tm())
    unsafe localtime_r(&seconds, &parts)
    let micros = Int(time % 1_000_000_000 / 1000)
    return unsafe [parts.tm_hour, parts.tm_min, parts.tm_sec].map { decimal(Int($0), 2) }
      .joined(separator: ":") + "." + decimal(micros, 6)
  }

  private static func decimal(_ number: Int, _ digits: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }

  /// Sixteen bytes a line, as `tcpdump -x` prints them.
  private static func dump(_ bytes: ArraySlice<UInt8>) -> String {
    var text = ""
    var rest = bytes
    while !rest.isEmpty {
      text += "\t0x\(hex(bytes.count - rest.count, 4)): "
      for (i, byte) in rest.prefix(16).enumerated() {
        text += (i % 2 == 0 ? " " : "") + hex(Int(byte), 2)
      }
      text += "\n"
      rest = rest.dropFirst(16)
    }
    return text
  }
}
