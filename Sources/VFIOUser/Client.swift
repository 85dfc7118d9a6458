import CIxy
import Glibc
import Ixy

/// A device that another process serves over vfio-user, as a driver sees it.
///
/// Register pages that the server shares are mapped, and doorbells in them cost no system call. Every other
/// access is a message. When the server goes, is silent for too long or breaks the protocol, registers read
/// as all ones from then on, as those of a card that was pulled out.
public final class VFIOUserDevice: PCIDevice {
  /// How messages name the device.
  public let name: String
  /// Unknown: the memory is where the domain has put it.
  public var numaNode: Int? { nil }

  let server: ServerConnection
  /// What the server takes.
  let capabilities: Capabilities

  /// Connects to the server at `path`.
  ///
  /// From here on memory that the server truncates under our hands reads as all ones: SIGBUS is handled for
  /// the whole process.
  ///
  /// - Parameters:
  ///   - path: Its socket.
  ///   - name: How messages shall name the device; nil makes it `vfio-user:` and the path.
  ///   - timeout: The longest wait for a reply, and for the server's time. More than a server's patience with
  ///     the client before, and than a busy machine keeps a process waiting.
  /// - Throws: `DeviceError` when nobody serves a PCI device there.
  public init(path: String, name: String? = nil, timeout: Duration = .seconds(30))
    throws(DeviceError)
  {
    self.name = name ?? "vfio-user:\(path)"
    ixy_survive_truncation()
    let socket: Int32
    switch connectSocket(to: path, limit: timeout) {
    case .success(let connected): socket = connected
    case .failure(let error):
      throw .system(
        "Connect to the server of \(self.name)", errno: error.errno,
        advice: "Is it running? Start: ixy emulate 82599 --socket \(path)")
    }
    server = ServerConnection(FileDescriptor(owning: socket), name: self.name, timeout: timeout)
    capabilities = try Self.negotiate(server)
    try checkKind()
  }

  private static func negotiate(_ server: ServerConnection) throws(DeviceError) -> Capabilities {
    do {
      let reply = try server.call(.version, Version.payload(json: Capabilities.ours.json))
      let capabilities = try Version(payload: reply.payload).capabilities
      guard capabilities.maxFiles > 0 else { throw Refusal("it takes no descriptors") }
      return capabilities
    } catch let error as DeviceError {
      if case .timeout = error {
        throw .refused(
          "Connect to the server of \(server.name)", found: "it does not answer",
          advice: "It serves one client at a time: is another one connected?")
      }
      throw error
    } catch let error as Refusal {
      throw .misbehaved(device: server.name, "in the server's version, \(error.reason)")
    } catch { fatalError("no other error is thrown") }
  }

  /// Whether it is a PCI device: flag 2, config space among its regions, three kinds of interrupt.
  private func checkKind() throws(DeviceError) {
    let words = try words(of: .deviceInfo, [UInt8](words: 16, 0, 0, 0), count: 4)
    guard words[1] & 2 != 0, words[2] > Regions.config, words[3] > 2 else {
      throw .refused(
        "Use \(name) as a network card", found: "the server's device is not on PCI",
        advice: "Look at what it was started with.")
    }
  }

  /// Sends a command and takes the first 32-bit fields of its reply.
  func words(of command: Command, _ payload: [UInt8], count: Int) throws(DeviceError) -> [UInt32] {
    let reply = try server.call(command, payload).payload
    guard reply.count >= 4 * count else { throw misbehaved("a reply to \(command) is too short") }
    return (0..<count).map { UInt32(number(in: reply[4 * $0..<4 * $0 + 4])) }
  }

  func misbehaved(_ how: String) -> DeviceError { .misbehaved(device: name, how) }

  /// Maps what the server shares of a BAR; the rest is forwarded to it.
  public func bar(_ index: Int) throws(DeviceError) -> BAR {
    guard (0..<6).contains(index) else {
      throw .refused(
        "Map BAR \(index) of \(name)", found: "there are six of them", advice: "Name 0 to 5.")
    }
    let region = try RemoteRegion(of: self, index)
    guard region.size > 0 else {
      throw .refused(
        "Map BAR \(index) of \(name)", found: "its server has none",
        advice: "Is it the card that you mean?")
    }
    guard let pages = unsafe region.pages else {
      return ForwardedBAR(RemoteRegisters(server, region: index, posts: true), size: region.size)
    }
    // A doorbell in a mapped page would overtake a posted write: there, every write waits for its reply.
    return unsafe ForwardedBAR(
      RemoteRegisters(server, region: index, posts: false), size: region.size,
      base: pages, mapped: region.areas)
  }

  /// Reads config space.
  public func readConfig(_ offset: Int, width: Int) throws(DeviceError) -> UInt32 {
    try UInt32(
      truncatingIfNeeded: RemoteRegisters(server, region: Regions.config, posts: false)
        .tryRead(offset, width: width))
  }

  /// Writes config space.
  public func writeConfig(_ value: UInt32, to offset: Int, width: Int) throws(DeviceError) {
    try RemoteRegisters(server, region: Regions.config, posts: false)
      .tryWrite(UInt64(value), to: offset, width: width)
  }

  /// Sends the domain's memory to the server, now and later.
  public func attach(to domain: DMADomain) throws(DeviceError) { try domain.attach(self) }

  /// Puts the device back to power-on; its memory stays mapped.
  public func reset() throws(DeviceError) { _ = try server.call(.reset) }
}

extension VFIOUserDevice: DMAMapper {
  /// The server has it.
  public var sharesMemory: Bool { true }

  /// All 64 bits.
  public var usableIOVAs: [ClosedRange<UInt64>] { [0 ... .max] }

  /// Sends `file` to the server.
  public func map(
    file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int
  ) throws(DeviceError) {
    var payload = [UInt8](words: 32, 0b11)
    payload.append(field: UInt64(offset))
    payload.append(field: iova)
    payload.append(field: UInt64(size))
    _ = try server.call(.mapDMA, payload, files: [file])
  }

  /// Tells the server to forget a mapping.
  public func unmap(iova: UInt64, size: Int) {
    var payload = [UInt8](words: 24, 0)
    payload.append(field: iova)
    payload.append(field: UInt64(size))
    // Whoever refuses this has lost the mapping already, or is gone.
    _ = try? server.call(.unmapDMA, payload)
  }
}

/// The registers of one region, as messages.
final class RemoteRegisters: RegisterAccess {
  private let server: ServerConnection
  private let region: Int
  /// Whether writes do not wait for a reply.
  private let posts: Bool

  init(_ server: ServerConnection, region: Int, posts: Bool) {
    self.server = server
    self.region = region
    self.posts = posts
  }

  func read(_ offset: Int, width: Int) -> UInt64 {
    (try? tryRead(offset, width: width)) ?? .max >> UInt64(64 - 8 * width)
  }

  func write(_ value: UInt64, to offset: Int, width: Int) {
    // Nobody to tell: the next read gives all ones.
    try? tryWrite(value, to: offset, width: width)
  }

  func tryRead(_ offset: Int, width: Int) throws(DeviceError) -> UInt64 {
    let access = RegionAccess(offset: UInt64(offset), region: region, count: width)
    let reply = try server.call(.regionRead, access.payload).payload
    guard reply.count == access.payload.count + width else {
      throw .misbehaved(device: server.name, "the server answers with \(reply.count) bytes")
    }
    return number(in: reply.suffix(width))
  }

  func tryWrite(_ value: UInt64, to offset: Int, width: Int) throws(DeviceError) {
    var payload = RegionAccess(offset: UInt64(offset), region: region, count: width).payload
    payload.append(number: value, width: width)
    if posts {
      try server.post(.regionWrite, payload)
    } else {
      _ = try server.call(.regionWrite, payload)
    }
  }
}
