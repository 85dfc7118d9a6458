import Emulation
import Glibc

/// The regions of a device and where accesses to them go (reference vfio-user.md, §4 and §6).
struct Regions {
  /// BAR 0 to 5, the ROM, config space and VGA, in this order.
  static let count = 9
  static let config = 7

  /// Flags of a region.
  struct Flags: OptionSet {
    let rawValue: UInt32
    static let read = Self(rawValue: 1)
    static let write = Self(rawValue: 2)
    static let mmap = Self(rawValue: 4)
    static let capabilities = Self(rawValue: 8)
  }

  let model: any DeviceModel
  /// What clients may map; nil makes every access a message.
  let sharedPages: SharedPages?

  /// Bytes of a region; 0 where the device has none.
  func size(_ index: Int) -> Int {
    if index == Self.config { return model.configSize }
    return model.barSizes.indices.contains(index) && index < 6 ? model.barSizes[index] : 0
  }

  /// Answers DEVICE_GET_REGION_INFO.
  ///
  /// - Returns: The payload, and the file of the shared pages where it speaks of them.
  func info(_ payload: [UInt8]) throws(Refusal) -> (payload: [UInt8], file: Int32?) {
    var fields = Fields(payload)
    let argsz = try fields.take(UInt32.self)
    _ = try fields.take(UInt32.self)
    let index = Int(try fields.take(UInt32.self))
    guard payload.count >= 32, argsz >= 32 else { throw Refusal("it is too short") }
    guard index < Self.count else { throw Refusal("there is no region \(index)") }
    var flags: Flags = size(index) > 0 ? [.read, .write] : []
    var capability: [UInt8] = []
    if index == 0, let sharedPages, !sharedPages.ranges.isEmpty {
      flags.formUnion([.mmap, .capabilities])
      capability = Self.sparseCapability(sharedPages.ranges)
    }
    let needed = UInt32(32 + capability.count)
    // A client that has too little room learns how much it needs, and asks again. The offset is named even
    // then: QEMU takes a capability without one for an error.
    let fits = argsz >= needed
    var reply = [UInt8](
      words: needed, flags.rawValue, UInt32(index), capability.isEmpty ? 0 : 32)
    reply.append(field: UInt64(size(index)))
    reply.append(field: UInt64(0))  // a page lies at its own offset in the file
    if fits { reply += capability }
    return (reply, fits && !capability.isEmpty ? sharedPages?.file : nil)
  }

  /// The capability that names the parts of a region that may be mapped: id 1, version 1, nothing after it.
  private static func sparseCapability(_ ranges: [Range<Int>]) -> [UInt8] {
    var bytes = [UInt8](words: 1 | 1 << 16, 0, UInt32(ranges.count), 0)
    for range in ranges {
      bytes.append(field: UInt64(range.lowerBound))
      bytes.append(field: UInt64(range.count))
    }
    return bytes
  }

  /// Reads bytes of a region, as the aligned accesses of 1 to 8 bytes that they consist of.
  func read(_ access: RegionAccess) throws(Refusal) -> [UInt8] {
    try check(access)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(access.count)
    forEachPart(of: access) { offset, width in
      let value =
        access.region == Self.config
        ? UInt64(model.readConfig(offset, width: width))
        : model.read(bar: access.region, offset, width: width)
      bytes.append(number: value, width: width)
    }
    return bytes
  }

  /// Writes bytes to a region, as many of `data` as the access has.
  func write(_ data: ArraySlice<UInt8>, _ access: RegionAccess) throws(Refusal) {
    try check(access)
    guard data.count >= access.count else { throw Refusal("it is too short") }
    var data = data
    forEachPart(of: access) { offset, width in
      let value = number(in: data.prefix(width))
      data = data.dropFirst(width)
      if access.region == Self.config {
        model.writeConfig(UInt32(truncatingIfNeeded: value), to: offset, width: width)
      } else {
        model.write(value, bar: access.region, to: offset, width: width)
      }
    }
  }

  private func check(_ access: RegionAccess) throws(Refusal) {
    guard access.region < Self.count, access.count <= Message.maxData,
      access.offset <= UInt64(Int.max), size(access.region) >= access.count,
      Int(access.offset) <= size(access.region) - access.count
    else {
      throw Refusal(
        "\(access.count) bytes at \(String(access.offset, radix: 16)) are not in region "
          + "\(access.region)")
    }
  }

  private func forEachPart(of access: RegionAccess, _ body: (_ offset: Int, _ width: Int) -> Void) {
    var offset = Int(access.offset)
    let end = offset + access.count
    while offset < end {
      var width = access.region == Self.config ? 4 : 8
      while offset % width != 0 || offset + width > end { width /= 2 }
      body(offset, width)
      offset += width
    }
  }
}

/// What REGION_READ and REGION_WRITE begin with.
struct RegionAccess {
  var offset: UInt64
  var region: Int
  var count: Int

  init(offset: UInt64, region: Int, count: Int) {
    (self.offset, self.region, self.count) = (offset, region, count)
  }

  init(_ fields: inout Fields) throws(Refusal) {
    offset = try fields.take()
    region = Int(try fields.take(UInt32.self))
    count = Int(try fields.take(UInt32.self))
  }

  var payload: [UInt8] {
    var payload: [UInt8] = []
    payload.append(field: offset)
    payload.append(field: UInt32(region))
    payload.append(field: UInt32(count))
    return payload
  }
}
