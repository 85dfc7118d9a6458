import Foundation
import Testing

/// What the compiler lets threads do with packets, queues and mempools.
///
/// Each program here is compiled against the library; where a line says `refused`, and nowhere else, there must be
/// an error.
@Suite struct IsolationTests {
  /// What every program begins with: a way to each thing, and to a thread that works on it.
  static let prelude = """
    import Foundation
    import Ixy
    import Synchronization
    func look(_ packet: borrowing Packet) {}
    func make(_ shared: SharedMempool) throws -> sending Mempool { try shared.part() }

    """

  @Test func `what belongs together may go together`() throws {
    let errors = try compile(
      """
      struct Lane: ~Copyable {
        var rx: IxgbeReceiveQueue
        var tx: IxgbeTransmitQueue
        let pool: Mempool
      }
      func lane(_ device: IxgbeDevice, _ domain: DMADomain) throws {
        let pool = try Mempool(domain: domain, buffers: 4096)
        let lane = Lane(
          rx: try device.takeReceiveQueue(0, mempool: pool), tx: try device.takeTransmitQueue(0),
          pool: pool)
        let thread = try WorkerThread("lane", owning: lane) { lane in
          lane.rx.forward(to: &lane.tx, max: 32) { _ in .send }
        }
        // The control plane stays.
        print(device.statistics(), domain.largestBlock)
        let back = try thread.join()
        print(back.pool.available)
      }
      func ring(_ shared: SharedMempool) throws {
        let ring = PacketRing(of: shared)
        let here = try shared.part()
        let there = try shared.part()
        let receiver = ring.receiver(into: there)
        var sender = ring.sender()
        let thread = try WorkerThread("other", owning: receiver) { receiver in
          var batch = PacketBatch(capacity: 32)
          receiver.receive(into: &batch)
        }
        var batch = PacketBatch(capacity: 32)
        if let packet = here.packet(length: 60) { batch.append(packet) }
        sender.send(&batch)
        _ = try thread.join()
        print(here.available)
      }
      """)
    #expect(errors == [])
  }

  @Test func `packets do not go to another thread while their mempool is in use`() throws {
    try expectRefusals(
      """
      func task(_ shared: SharedMempool) throws {
        let pool = try shared.part()
        if let packet = pool.packet(length: 60) {
          Task { look(packet) }  // refused
        }
        print(pool.available)
      }
      func detached(_ shared: SharedMempool) throws {
        let pool = try shared.part()
        if let packet = pool.packet(length: 60) {
          Task.detached { look(packet) }  // refused
        }
        print(pool.available)
      }
      func thread(_ shared: SharedMempool) throws {
        let pool = try shared.part()
        if let packet = pool.packet(length: 60) {
          _ = try WorkerThread("other", owning: packet) { look($0) }  // refused
        }
        print(pool.available)
      }
      func mutex(_ shared: SharedMempool) throws {
        let pool = try shared.part()
        if let packet = pool.packet(length: 60) {
          let box = Mutex(packet)  // refused
          box.withLock { look($0) }
        }
        print(pool.available)
      }
      func batch(_ shared: SharedMempool) throws {
        let pool = try shared.part()
        var batch = PacketBatch(capacity: 32)
        if let packet = pool.packet(length: 60) { batch.append(packet) }
        _ = try WorkerThread("other", owning: batch) { $0.removeAll() }  // refused
        print(pool.available)
      }
      """)
  }

  @Test func `packets do not go to another thread while their queue is in use`() throws {
    try expectRefusals(
      """
      func received(_ device: IxgbeDevice, _ shared: SharedMempool) throws {
        var queue = try device.takeReceiveQueue(0, mempool: try shared.part())
        var batch = PacketBatch(capacity: 32)
        queue.receive(into: &batch)
        _ = try WorkerThread("other", owning: batch) { $0.removeAll() }  // refused
        var other = PacketBatch(capacity: 32)
        queue.receive(into: &other)
      }
      func single(_ device: IxgbeDevice, _ shared: SharedMempool) throws {
        var queue = try device.takeReceiveQueue(0, mempool: try shared.part())
        var batch = PacketBatch(capacity: 32)
        queue.receive(into: &batch)
        if let packet = batch.popFirst() {
          let box = Mutex(packet)  // refused
          box.withLock { look($0) }
        }
        queue.receive(into: &batch)
      }
      """)
  }

  @Test func `queues, ends and mempools do not go while their like is in use`() throws {
    try expectRefusals(
      """
      func queue(_ device: IxgbeDevice, _ domain: DMADomain) throws {
        let pool = try Mempool(domain: domain, buffers: 4096)
        let queue = try device.takeReceiveQueue(0, mempool: pool)
        _ = try WorkerThread("other", owning: queue) { _ in }  // refused
        print(pool.available)
      }
      func anyQueue(_ device: any EthernetDevice, _ domain: DMADomain) throws {
        let pool = try Mempool(domain: domain, buffers: 4096)
        let queue = try device.receiveQueue(0, mempool: pool)
        let other = try device.receiveQueue(1, mempool: pool)
        _ = try WorkerThread("one", owning: queue) { _ in }  // refused
        _ = try WorkerThread("two", owning: other) { _ in }
      }
      func pool(_ domain: DMADomain) throws {
        let pool = try Mempool(domain: domain, buffers: 4096)
        let box = Mutex(pool)  // refused
        print(pool.available)
        box.withLock { print($0.available) }
      }
      func end(_ shared: SharedMempool) throws {
        let pool = try shared.part()
        let receiver = PacketRing(of: shared).receiver(into: pool)
        _ = try WorkerThread("other", owning: receiver) { _ in }  // refused
        print(pool.available)
      }
      """)
  }

  @Test func `no thread's closure captures what belongs to another`() throws {
    try expectRefusals(
      """
      func foundation(_ shared: SharedMempool) throws {
        let pool = try shared.part()
        Thread.detachNewThread { print(pool.available) }  // refused
      }
      func packet(_ shared: SharedMempool) throws {
        let pool = try shared.part()
        if let packet = pool.packet(length: 60) {
          Thread.detachNewThread { look(packet) }  // refused
        }
      }
      func worker(_ shared: SharedMempool, _ device: IxgbeDevice) throws {
        let pool = try shared.part()
        _ = try WorkerThread("other", owning: device) { _ in print(pool.available) }  // refused
      }
      """)
  }

  @Test(arguments: [
    "Packet", "PacketBatch", "Mempool", "PacketSender", "PacketReceiver", "IxgbeReceiveQueue",
    "IxgbeTransmitQueue", "any ReceiveQueue & ~Copyable", "any TransmitQueue & ~Copyable",
    "VirtioSplitReceiveQueue", "VirtioPackedTransmitQueue",
  ])
  func `it is not Sendable`(type: String) throws {
    try expectRefusals(
      """
      func needs<T: Sendable & ~Copyable>(_: T.Type) {}
      func test() {
        needs(DMADomain.self)
        needs(SharedMempool.self)
        needs(PacketRing.self)
        needs((any EthernetDevice).self)
        needs((\(type)).self)  // refused
      }
      """)
  }

  // MARK: - The compiler

  /// Compiles a program, and expects an error in each line marked `refused`, and nowhere else.
  private func expectRefusals(
    _ program: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let first = Self.prelude.split(separator: "\n", omittingEmptySubsequences: false).count
    let marked = program.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
      .filter { $0.element.hasSuffix("// refused") }.map { $0.offset + first }
    let errors = try compile(program)
    #expect(!marked.isEmpty, sourceLocation: sourceLocation)
    #expect(
      Set(errors.map(\.line)) == Set(marked), "\(errors.map(\.text))",
      sourceLocation: sourceLocation)
  }

  struct CompilerError: Equatable {
    var line: Int
    var text: String
  }

  /// The errors of a program.
  ///
  /// Data races are found after type checking: it is compiled whole.
  private func compile(_ program: String) throws -> [CompilerError] {
    let folder = FileManager.default.temporaryDirectory.appending(
      path: "ixy-\(UUID().uuidString.prefix(8))")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appending(path: "program.swift")
    try (Self.prelude + program).write(to: file, atomically: true, encoding: .utf8)
    let products = try #require(Bundle.main.executableURL?.deletingLastPathComponent())
    let modules = products.appending(path: "Modules").path
    try #require(FileManager.default.fileExists(atPath: modules + "/Ixy.swiftmodule"))
    let headers = URL(filePath: #filePath).deletingLastPathComponent().appending(
      path: "../../../Sources/CIxy/include")
    let output = folder.appending(path: "output")
    _ = FileManager.default.createFile(atPath: output.path, contents: nil)
    let compiler = Process()
    compiler.executableURL = URL(filePath: "/usr/bin/env")
    compiler.arguments = [
      "swiftc", "-emit-sil", "-o", "/dev/null", "-swift-version", "6", "-parse-as-library",
      "-enable-experimental-feature", "Lifetimes", "-diagnostic-style", "llvm",
      "-I", modules, "-Xcc", "-fmodule-map-file=\(headers.path)/module.modulemap",
      "-module-cache-path", products.appending(path: "ModuleCache").path, file.path,
    ]
    compiler.standardError = try FileHandle(forWritingTo: output)
    compiler.standardOutput = FileHandle.nullDevice
    try compiler.run()
    compiler.waitUntilExit()
    let text = try String(contentsOf: output, encoding: .utf8)
    let errors = text.split(separator: "\n").compactMap { line -> CompilerError? in
      // path:line:column: error: text
      let parts = line.split(separator: ":", maxSplits: 4)
      guard parts.count == 5, parts[3] == " error", let number = Int(parts[1]) else { return nil }
      return CompilerError(line: number, text: String(line))
    }
    // An error without a line is one of this test.
    if compiler.terminationStatus != 0 && errors.isEmpty { throw CompilerFailure(output: text) }
    return errors
  }

  struct CompilerFailure: Error { var output: String }
}
