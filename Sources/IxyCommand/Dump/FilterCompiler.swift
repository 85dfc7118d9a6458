import CIxy
import Glibc
import Ixy

/// libpcap's own compiler of filter expressions, loaded when it is needed.
@safe struct FilterCompiler {
  private typealias OpenDead = @convention(c) (Int32, Int32) -> OpaquePointer?
  private typealias Compile =
    @convention(c) (
      OpaquePointer, UnsafeMutableRawPointer, UnsafePointer<CChar>, Int32, UInt32
    ) -> Int32
  private typealias GetError = @convention(c) (OpaquePointer) -> UnsafePointer<CChar>?
  private typealias FreeCode = @convention(c) (UnsafeMutableRawPointer) -> Void
  private typealias Close = @convention(c) (OpaquePointer) -> Void

  /// `struct bpf_program`.
  @safe private struct Program {
    var count: UInt32 = 0
    var instructions: UnsafeMutablePointer<FilterProgram.Instruction>?
  }

  private let library: UnsafeMutableRawPointer
  private let tried: String

  /// Compiles an expression for Ethernet frames, as in `tcp port 80`.
  ///
  /// - Throws: `DeviceError` when libpcap cannot be had, or does not understand the expression.
  static func compile(_ expression: String) throws(DeviceError) -> FilterProgram {
    let compiler = try FilterCompiler("Understand the filter \"\(expression)\"")
    return try compiler.compile(expression)
  }

  private init(_ tried: String) throws(DeviceError) {
    self.tried = tried
    // Without a dynamic linker in this process a library would bring a second C library with it.
    if getauxval(UInt(AT_BASE)) == 0 {
      throw .refused(
        tried, found: "this ixy is linked statically and cannot load libpcap",
        advice: "Use the one that `make build` makes, or capture all and filter with tcpdump -r.")
    }
    for name in ["libpcap.so.0.8", "libpcap.so.1", "libpcap.so"] {
      if let library = unsafe dlopen(name, RTLD_NOW) {
        unsafe self.library = unsafe library
        return
      }
    }
    throw .refused(
      tried, found: "libpcap is not installed", advice: "Run: sudo apt-get install libpcap0.8")
  }

  private func function<Function>(_ name: String, _: Function.Type) throws(DeviceError) -> Function
  {
    guard let symbol = unsafe dlsym(library, name) else {
      throw .refused(
        tried, found: "libpcap has no \(name)", advice: "Run: sudo apt-get install libpcap0.8")
    }
    // SAFETY: the types above are those of pcap.h.
    return unsafe unsafeBitCast(symbol, to: Function.self)
  }

  private func compile(_ expression: String) throws(DeviceError) -> FilterProgram {
    let open = unsafe try function("pcap_open_dead", OpenDead.self)
    let compile = unsafe try function("pcap_compile", Compile.self)
    let error = unsafe try function("pcap_geterr", GetError.self)
    let free = unsafe try function("pcap_freecode", FreeCode.self)
    let close = unsafe try function("pcap_close", Close.self)
    // Link type 1 is Ethernet; an unknown netmask only matters to "ip broadcast".
    let (ethernet, unknownMask, optimize): (Int32, UInt32, Int32) = (1, .max, 1)
    guard let handle = unsafe open(ethernet, 262_144) else { throw .lastError(tried) }
    defer { unsafe close(handle) }
    var program = Program()
    guard unsafe compile(handle, &program, expression, optimize, unknownMask) == 0 else {
      let found = unsafe error(handle).map { unsafe String(cString: $0) } ?? "no reason was given"
      throw .refused(tried, found: found, advice: "man pcap-filter describes the language.")
    }
    defer { unsafe free(&program) }
    let instructions = unsafe UnsafeBufferPointer(
      start: program.instructions, count: Int(program.count))
    guard let filter = unsafe FilterProgram(Array(instructions)) else {
      throw .refused(
        tried, found: "libpcap's program is not valid",
        advice: "Capture all, and filter with tcpdump -r.")
    }
    return filter
  }
}
