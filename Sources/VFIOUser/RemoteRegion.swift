import Glibc
import Ixy

/// What a server says about a region, checked, and the pages of it that it shares.
@safe struct RemoteRegion {
  /// Bytes of the region; 0 where the device has none.
  let size: Int
  /// The parts that are mapped at `pages` + offset.
  private(set) var areas: [Range<Int>] = []
  /// Address space of the whole region; who takes it unmaps it.
  private(set) var pages: UnsafeMutableRawPointer?

  /// The room that is left for capabilities: 200 mapped areas and more.
  private static let maxReply: UInt32 = 4096

  /// Asks for BAR `index`, and maps what can be mapped of it.
  init(of device: VFIOUserDevice, _ index: Int) throws(DeviceError) {
    let request = [UInt8](words: Self.maxReply, 0, UInt32(index), 0, 0, 0, 0, 0)
    let (payload, files) = try device.server.call(.regionInfo, request)
    do {
      var fields = Fields(payload)
      let argsz = try fields.take(UInt32.self)
      let flags = Regions.Flags(rawValue: try fields.take())
      _ = try fields.take(UInt32.self)
      let capabilities = Int(try fields.take(UInt32.self))
      let (size, offset) = (try fields.take(UInt64.self), try fields.take(UInt64.self))
      guard size <= UInt64(Int32.max) * 4096 else { throw Refusal("it has \(size) bytes") }
      self.size = Int(size)
      guard size > 0, flags.contains(.mmap), argsz <= Self.maxReply, let file = files.takeFirst()
      else {
        return
      }
      areas = [0..<self.size]
      if flags.contains(.capabilities) {
        areas = try Self.areas(in: payload, at: capabilities) ?? areas
      }
      try map(file, offset: offset)
    } catch let error as DeviceError {
      throw error
    } catch let error as Refusal {
      throw device.misbehaved("in the server's BAR \(index), \(error.reason)")
    } catch { fatalError("no other error is thrown") }
  }

  /// The areas of the sparse mapping capability; nil when there is none in the chain.
  private static func areas(in payload: [UInt8], at start: Int) throws(Refusal) -> [Range<Int>]? {
    var next = start
    // Each capability lies behind the one before, so that no chain is endless; the first behind the fields.
    var last = 31
    while next != 0 {
      guard next > last, next <= payload.count else { throw Refusal("capabilities go astray") }
      last = next
      var fields = Fields(payload[next...])
      let (id, _) = (try fields.take(UInt16.self), try fields.take(UInt16.self))
      next = Int(try fields.take(UInt32.self))
      if id == 1 { return try areas(&fields) }
    }
    return nil
  }

  private static func areas(_ fields: inout Fields) throws(Refusal) -> [Range<Int>] {
    let count = try fields.take(UInt32.self)
    _ = try fields.take(UInt32.self)
    var areas: [Range<Int>] = []
    for _ in 0..<count {
      let (offset, size) = (try fields.take(UInt64.self), try fields.take(UInt64.self))
      guard offset <= Int32.max, size > 0, size <= Int32.max else {
        throw Refusal("an area is no range")
      }
      areas.append(Int(offset)..<Int(offset + size))
    }
    return areas
  }

  /// Maps the areas of `file`, each at its own place in address space as large as the region.
  private mutating func map(_ file: borrowing FileDescriptor, offset: UInt64) throws {
    for area in areas {
      guard area.lowerBound % PeerMemory.pageSize == 0, area.upperBound <= size,
        offset <= UInt64(Int32.max)
      else { throw Refusal("the shared pages are not in its file") }
      try PeerMemory.check(
        file, offset: offset + UInt64(area.lowerBound), size: area.count, takesHugePages: false)
    }
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | Int32(MAP_NORESERVE)
    let space = unsafe mmap(nil, size, PROT_NONE, flags, -1, 0)
    guard let space = unsafe space, unsafe space != MAP_FAILED else {
      throw Self.mapError(size)
    }
    for area in areas {
      // SAFETY: the area is inside the region, and so inside the address space just taken.
      let page = unsafe mmap(
        space + area.lowerBound, area.count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
        file.number, Int(offset) + area.lowerBound)
      guard unsafe page != MAP_FAILED else {
        let error = Self.mapError(area.count)
        unsafe munmap(space, size)
        throw error
      }
    }
    unsafe pages = unsafe space
  }

  private static func mapError(_ size: Int) -> DeviceError {
    .system(
      "Map \(size) bytes of registers", errno: errno,
      advice: "Serve the card with --no-shared-tails.")
  }
}
