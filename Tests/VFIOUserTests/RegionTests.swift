import Emulation
import Glibc
import Testing

@testable import VFIOUser

/// What a server says about its device, and accesses to regions.
@Suite struct RegionTests {
  private let model: ToyModel
  private let client: RawClient

  init() throws {
    model = try ToyModel()
    client = try RawClient(VFIOUserServer(model: model, path: socketPath()))
    try client.negotiate()
  }

  private func access(_ region: UInt32, _ offset: UInt64, _ count: UInt32) -> [UInt8] {
    var payload: [UInt8] = []
    payload.append(field: offset)
    return payload + [UInt8](words: region, count)
  }

  private func read(_ region: UInt32, _ offset: UInt64, _ count: UInt32) throws -> [UInt8] {
    Array(try client.ask(.regionRead, access(region, offset, count)).payload.dropFirst(16))
  }

  @Test func `a region access reads the bytes that were asked for`() throws {
    #expect(hex(try read(7, 0, 4)) == "8680ab15")
    #expect(hex(try read(0, 0, 4)) == "78563412")
    #expect(hex(try read(0, 1, 3)) == "563412")
    #expect(try read(7, 0, 4096) == model.config)
    #expect(try read(0, 0, 0) == [])
  }

  @Test func `an access of any alignment becomes aligned ones`() throws {
    let written = (0..<32).map { UInt8($0 + 1) }
    for (offset, count) in [(8, 8), (9, 7), (11, 13), (8, 32), (15, 2)] {
      let data = Array(written.prefix(count))
      let payload = access(0, UInt64(offset), UInt32(count)) + data
      #expect(try client.refusal(.regionWrite, payload) == nil)
      #expect(Array(model.registers[offset..<offset + count]) == data)
      #expect(try read(7, UInt64(offset), UInt32(count)).count == count)
    }
  }

  @Test func `an access outside a region is refused`() throws {
    let wrong: [(UInt32, UInt64, UInt32)] = [
      (0, 0x1FFD, 4), (0, 0x2000, 1), (0, .max, 1), (0, .max - 3, 8), (0, 1 << 63, 4), (1, 0, 1),
      (2, 0x20, 1), (6, 0, 4), (7, 4096, 1), (7, 0, 4097), (8, 0, 1), (9, 0, 1), (.max, 0, 1),
      (0, 0, .max), (0, 0, 1 << 20 + 1),
    ]
    for (region, offset, count) in wrong {
      let payload = access(region, offset, count)
      #expect(try client.refusal(.regionRead, payload) == EINVAL)
      let data = [UInt8](repeating: 0, count: Int(min(count, 64)))
      #expect(try client.refusal(.regionWrite, payload + data) == EINVAL)
    }
    #expect(model.log == [])
  }

  @Test func `a write whose data has another length is refused`() throws {
    for size in [0, 3, 5, 8] {
      let payload = access(0, 8, 4) + [UInt8](repeating: 1, count: size)
      #expect(try client.refusal(.regionWrite, payload) == EINVAL)
    }
    #expect(model.log == [])
  }

  @Test func `several writes come in one message`() throws {
    var payload: [UInt8] = []
    payload.append(field: UInt64(3))
    for (offset, count) in [(8, 4), (0x20, 8), (0x1000, 1)] {
      payload += access(0, UInt64(offset), UInt32(count)) + [1, 2, 3, 4, 5, 6, 7, 8]
    }
    #expect(try client.ask(.regionWriteMulti, payload).payload == [3, 0, 0, 0, 0, 0, 0, 0])
    // The doorbell is taken in with the next message.
    #expect(
      model.log == ["write 0 8 67305985", "write 0 32 578437695752307201", "write 0 4096 1"])
  }

  @Test func `more writes in one message than QEMU ever sends are refused`() throws {
    let entry = access(0, 8, 4) + [UInt8](repeating: 0, count: 8)
    for (count, error) in [(200, nil), (201, EINVAL)] as [(Int, Int32?)] {
      var payload: [UInt8] = []
      payload.append(field: UInt64(count))
      payload += [[UInt8]](repeating: entry, count: count).flatMap { $0 }
      #expect(try client.refusal(.regionWriteMulti, payload) == error)
    }
    #expect(model.log.count == 200)
  }

  @Test func `several writes with a wrong count are refused`() throws {
    let entry = access(0, 8, 4) + [UInt8](repeating: 0, count: 8)
    for count: UInt64 in [0, 2, .max, 0x0AAA_AAAA_AAAA_AAAB, 1 << 63] {
      var payload: [UInt8] = []
      payload.append(field: count)
      #expect(try client.refusal(.regionWriteMulti, payload + entry) == EINVAL)
    }
    for size: UInt32 in [0, 9, .max] {
      let wrong = access(0, 8, size) + [UInt8](repeating: 0, count: 8)
      let payload = [1, 0, 0, 0, 0, 0, 0, 0] + wrong
      #expect(try client.refusal(.regionWriteMulti, payload) == EINVAL)
    }
    #expect(model.log == [])
  }

  private func info(_ index: UInt32, argsz: UInt32) throws -> (reply: [UInt8], files: Int) {
    let payload = [UInt8](words: argsz, 0, index, 0, 0, 0, 0, 0)
    client.send(Message(id: 1, command: .regionInfo, payload: payload).bytes)
    let (bytes, files) = client.drain()
    return (Array(bytes.dropFirst(16)), files)
  }

  @Test func `a region with shared pages names them`() throws {
    let (reply, files) = try info(0, argsz: 64)
    let expected = """
      40000000 0f000000 00000000 20000000 0020000000000000 0000000000000000 \
      0100 0100 00000000 01000000 00000000 0010000000000000 0010000000000000
      """
    #expect(hex(reply) == expected.filter(\.isHexDigit))
    #expect(files == 1)
  }

  @Test func `a client with too little room learns how much it needs`() throws {
    let (reply, files) = try info(0, argsz: 32)
    let expected =
      "40000000 0f000000 00000000 20000000 0020000000000000 0000000000000000"
    #expect(hex(reply) == expected.filter(\.isHexDigit))
    #expect(files == 0)
  }

  @Test func `a region without shared pages has no capability`() throws {
    #expect(try info(7, argsz: 4096).reply.count == 32)
    #expect(try info(7, argsz: 4096).files == 0)
  }

  @Test func `questions about what is not there are refused`() throws {
    #expect(try client.refusal(.regionInfo, [UInt8](words: 32, 0, 9, 0, 0, 0, 0, 0)) == EINVAL)
    #expect(try client.refusal(.regionInfo, [UInt8](words: 31, 0, 0, 0, 0, 0, 0, 0)) == EINVAL)
    #expect(try client.refusal(.regionInfo, [UInt8](words: 32, 0, 0, 0)) == EINVAL)
    #expect(try client.refusal(.irqInfo, [UInt8](words: 16, 0, 5, 0)) == EINVAL)
    #expect(try client.refusal(.irqInfo, [UInt8](words: 16, 0, .max, 0)) == EINVAL)
    #expect(try client.refusal(.irqInfo, [UInt8](words: 16, 0)) == EINVAL)
    #expect(try client.refusal(.deviceInfo, [UInt8](words: 15, 0, 0, 0)) == EINVAL)
    #expect(try client.refusal(.deviceInfo, []) == EINVAL)
  }

  @Test func `what the server does not offer is refused with its own errno`() throws {
    let payload = [UInt8](repeating: 0, count: 32)
    for command in [
      Command.regionIOFDs, .dirtyPages, .readMigrationData, .writeMigrationData,
    ] { #expect(try client.refusal(command, payload) == ENOTSUP) }
    #expect(try client.refusal(.deviceFeature, payload) == ENOTTY)
    #expect(try client.refusal(.readDMA, payload) == EINVAL)
    #expect(try client.refusal(.version, Version.payload(json: [])) == EINVAL)
  }

  @Test func `a conventional device has 256 bytes of config space`() throws {
    let model = try ToyModel(configSize: 256)
    let client = try RawClient(VFIOUserServer(model: model, path: socketPath()))
    try client.negotiate()
    #expect(try client.refusal(.regionRead, access(7, 252, 4)) == nil)
    #expect(try client.refusal(.regionRead, access(7, 256, 4)) == EINVAL)
  }
}
