import CIxy
import Emulation
import Glibc
import Ixy
import Testing

@testable import VFIOUser

/// DMA_MAP and DMA_UNMAP, in a server in the same thread.
@Suite struct MappingTests {
  private let model: ToyModel
  private let client: RawClient

  init() throws {
    model = try ToyModel()
    client = try RawClient(VFIOUserServer(model: model, path: socketPath()))
    try client.negotiate()
  }

  private func mapPayload(
    _ iova: UInt64, _ size: UInt64, offset: UInt64 = 0, flags: UInt32 = 3, argsz: UInt32 = 32
  ) -> [UInt8] {
    var payload = [UInt8](words: argsz, flags)
    for value in [offset, iova, size] { payload.append(field: value) }
    return payload
  }

  /// The errno that a DMA_MAP gets with `memory`.
  private func map(
    _ iova: UInt64, _ size: UInt64, offset: UInt64 = 0, flags: UInt32 = 3, argsz: UInt32 = 32,
    memory: Int = 1 << 20
  ) throws -> Int32? {
    let file = makeMemory(memory)
    return try client.refusal(
      .mapDMA, mapPayload(iova, size, offset: offset, flags: flags, argsz: argsz),
      files: [file.number])
  }

  private func unmap(_ iova: UInt64, _ size: UInt64, flags: UInt32 = 0) throws -> Int32? {
    var payload = [UInt8](words: 24, flags)
    for value in [iova, size] { payload.append(field: value) }
    return try client.refusal(.unmapDMA, payload)
  }

  @Test func `mapped memory is the client's`() throws {
    let file = makeMemory(8192)
    var value: UInt64 = 0x1122
    pwrite(file.number, &value, 8, 4096)
    let payload = mapPayload(0x5000, 4096, offset: 4096)
    #expect(try client.refusal(.mapDMA, payload, files: [file.number]) == nil)
    let pointer = try #require(model.dma.pointer(to: 0x5000, count: 8, forWriting: true))
    #expect(pointer.load(as: UInt64.self) == 0x1122)
    pointer.storeBytes(of: 0x3344, as: UInt64.self)
    pread(file.number, &value, 8, 4096)
    #expect(value == 0x3344)
  }

  @Test func `memory that is read-only is not written`() throws {
    #expect(try map(0x1000, 4096, flags: 1) == nil)
    #expect(model.dma.pointer(to: 0x1000, count: 8, forWriting: false) != nil)
    #expect(model.dma.pointer(to: 0x1000, count: 8, forWriting: true) == nil)
  }

  @Test func `a file that is open for reading only is not mapped for writing`() throws {
    let file = makeMemory(4096)
    let reopened = OpenFile(open("/proc/self/fd/\(file.number)", O_RDONLY))
    let files = [reopened.number]
    #expect(try client.refusal(.mapDMA, mapPayload(0, 4096), files: files) == EACCES)
    #expect(try client.refusal(.mapDMA, mapPayload(0, 4096, flags: 1), files: files) == nil)
  }

  @Test func `overlapping maps are refused`() throws {
    #expect(try map(0x10000, 0x10000) == nil)
    #expect(try map(0x10000, 0x10000) == EEXIST)
    #expect(try map(0x1F000, 0x1000) == EEXIST)
    #expect(try map(0x0F000, 0x2000) == EEXIST)
    #expect(try map(0x0, 0x100000) == EEXIST)
    #expect(try map(0x0F000, 0x1000) == nil)
    #expect(try map(0x20000, 0x1000) == nil)
    #expect(model.dma.count == 3)
  }

  @Test func `a range without a file overlaps too`() throws {
    #expect(try client.refusal(.mapDMA, mapPayload(0x10000, 0x10000, flags: 1)) == nil)
    #expect(try map(0x18000, 0x1000) == EEXIST)
    #expect(try unmap(0x10000, 0x10000) == nil)
    #expect(try map(0x18000, 0x1000) == nil)
  }

  @Test func `ranges that make no sense are refused`() throws {
    #expect(try map(0, 0) == EINVAL)
    #expect(try map(.max - 0xFFE, 0x1000) == EINVAL)
    #expect(try map(0, .max) == EINVAL)
    #expect(try map(0, 4096, offset: 1) == EINVAL)
    #expect(try map(0, 4096, offset: .max & ~4095) == EINVAL)
    #expect(try map(0, 4096, flags: 0) == EINVAL)
    #expect(try map(0, 4096, flags: 7) == EINVAL)
    #expect(try map(0, 4096, argsz: 31) == EINVAL)
    #expect(model.dma.count == 0)
  }

  @Test func `memory that is shorter than its mapping is refused`() throws {
    #expect(try map(0, 8192, memory: 4096) == EINVAL)
    #expect(try map(0, 4096, offset: 4096, memory: 4096) == EINVAL)
  }

  @Test func `a descriptor that is no memory is refused`() throws {
    let eventFD = makeEventFD()
    #expect(try client.refusal(.mapDMA, mapPayload(0, 4096), files: [eventFD.number]) == EINVAL)
    let folder = OpenFile(open("/tmp", O_RDONLY))
    #expect(try client.refusal(.mapDMA, mapPayload(0, 4096), files: [folder.number]) == EINVAL)
    let zero = OpenFile(open("/dev/zero", O_RDWR))
    #expect(try client.refusal(.mapDMA, mapPayload(0, 4096), files: [zero.number]) == EINVAL)
  }

  @Test func `two descriptors for one mapping are refused`() throws {
    let file = makeMemory(4096)
    let files = [file.number, file.number]
    #expect(try client.refusal(.mapDMA, mapPayload(0, 4096), files: files) == EINVAL)
  }

  @Test func `an unmapped range is out of reach`() throws {
    #expect(try map(0x1000, 0x1000) == nil)
    #expect(try unmap(0x1000, 0x1000) == nil)
    #expect(model.dma.pointer(to: 0x1000, count: 1, forWriting: false) == nil)
    #expect(try map(0x1000, 0x1000) == nil)
  }

  @Test func `a large range takes the mappings inside with it`() throws {
    #expect(try map(0x1000, 0x1000) == nil)
    #expect(try map(0x3000, 0x1000) == nil)
    #expect(try map(0x9000, 0x1000) == nil)
    #expect(try unmap(0, 0x8000) == nil)
    #expect(model.dma.count == 1)
    #expect(try unmap(0, 1 << 63) == nil)
    #expect(model.dma.count == 0)
  }

  @Test func `a range that would cut a mapping is refused`() throws {
    #expect(try map(0x1000, 0x2000) == nil)
    #expect(try unmap(0x2000, 0x1000) == EINVAL)
    #expect(try unmap(0, 0x2000) == EINVAL)
    #expect(model.dma.count == 1)
  }

  @Test func `all mappings go at once`() throws {
    for index: UInt64 in 0..<20 { #expect(try map(index << 20, 4096) == nil) }
    #expect(try unmap(0, 1, flags: 2) == EINVAL)
    #expect(try unmap(0, 0, flags: 2) == nil)
    #expect(model.dma.count == 0)
  }

  @Test func `unmaps that make no sense are refused`() throws {
    #expect(try unmap(0, 0) == EINVAL)
    #expect(try unmap(0x1000, .max) == EINVAL)
    #expect(try unmap(0, 4096, flags: 1) == EINVAL)
    #expect(try unmap(0, 4096, flags: 4) == EINVAL)
    #expect(try unmap(1 << 63, 1 << 63) == nil)
  }

  @Test func `a mapping keeps no descriptor open`() throws {
    let file = makeMemory(4096, name: "mapped")
    for index: UInt64 in 0..<50 {
      let payload = mapPayload(index << 20, 4096)
      #expect(try client.refusal(.mapDMA, payload, files: [file.number]) == nil)
    }
    #expect(openFiles(named: "mapped") == 1)
  }

  @Test func `a client cannot take all of the address space`() throws {
    let file = makeMemory(3 << 40)
    let payload = mapPayload(0, 3 << 40)
    #expect(try client.refusal(.mapDMA, payload, files: [file.number]) == nil)
    let second = mapPayload(8 << 40, 3 << 40)
    #expect(try client.refusal(.mapDMA, second, files: [file.number]) == ENOSPC)
    #expect(try unmap(0, 3 << 40) == nil)
    #expect(try client.refusal(.mapDMA, second, files: [file.number]) == nil)
  }

  @Test func `a client cannot take all mappings of the process`() throws {
    let file = makeMemory(4096)
    for index in 0..<DMAMappings.maxCount {
      client.send(
        Message(id: 1, command: .mapDMA, payload: mapPayload(UInt64(index) << 12, 4096)).bytes,
        files: [file.number])
      _ = client.server.poll()
      _ = client.receive()
    }
    #expect(model.dma.count == DMAMappings.maxCount)
    let payload = mapPayload(1 << 40, 4096)
    #expect(try client.refusal(.mapDMA, payload, files: [file.number]) == ENOSPC)
    #expect(try unmap(0, 1 << 63) == nil)
    #expect(model.dma.count == 0)
  }

  @Test func `memory that is truncated reads as all ones`() throws {
    let file = makeMemory(8192)
    #expect(try client.refusal(.mapDMA, mapPayload(0, 8192), files: [file.number]) == nil)
    ftruncate(file.number, 4096)
    let pointer = try #require(model.dma.pointer(to: 4096, count: 8, forWriting: true))
    #expect(pointer.load(as: UInt64.self) == .max)
    pointer.storeBytes(of: 1, as: UInt64.self)
    #expect(pointer.load(as: UInt64.self) == 1)
  }

  @Test func `all clients of a process share one budget`() throws {
    let budget = DMAMappings.Budget(limit: 3)
    let clients = (0..<2).map { _ in DMAMappings(DMATable(), budget: budget) }
    func map(_ client: Int, _ iova: UInt64, memory: Int = 4096) throws {
      let file = makeMemory(memory)
      try clients[client].map(mapPayload(iova, 4096), ReceivedFiles([dup(file.number)]))
    }
    #expect(throws: Refusal.self) { try map(0, 0, memory: 0) }
    for (client, iova) in [(0, 0), (1, 0), (1, 4096)] { try map(client, UInt64(iova)) }
    #expect(throws: Refusal.self) { try map(0, 4096) }
    clients[1].removeAll()
    try map(0, 4096)
  }

  /// Huge pages need none to be free as long as nothing is mapped.
  @Test(arguments: [(21, 4096, 0), (21, 2 << 20, 4096), (30, 1 << 30, 0)])
  func `huge pages are mapped whole, and not the largest`(
    bits: UInt32, size: UInt64, offset: UInt64
  ) throws {
    let hugeTLB: UInt32 = 4
    let file = OpenFile(ixy_memfd("huge", IXY_MEMFD_CLOEXEC | hugeTLB | bits << 26))
    // A kernel without such pages has nothing to refuse.
    guard file.number >= 0, ftruncate(file.number, 2 << 30) == 0 else { return }
    let payload = mapPayload(0, size, offset: offset)
    #expect(try client.refusal(.mapDMA, payload, files: [file.number]) == EINVAL)
    #expect(model.dma.count == 0)
  }

  @Test func `a range may end at the end of all addresses`() throws {
    #expect(try map(.max - 0xFFF, 0x1000) == nil)
    #expect(model.dma.pointer(to: .max - 7, count: 8, forWriting: true) != nil)
    #expect(try map(.max - 0xFFF, 0x1000) == EEXIST)
    #expect(try map(.max - 0x1FFF, 0x1000) == nil)
    #expect(try unmap(.max - 0x1FFF, 0x2000) == nil)
    #expect(model.dma.count == 0)
  }
}
