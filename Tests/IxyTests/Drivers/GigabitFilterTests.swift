import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

private let kinds: [GigabitModel.Kind] = [.e1000e, .igb]

/// Which frames reach the driver, and how the card's counters are read.
@Suite struct GigabitFilterTests {
  /// Which of these frames the card receives, by their place.
  private func received(
    _ frames: [[UInt8]], by model: GigabitModel, setUp: (any FrameFilter) throws -> Void
  ) throws -> [Int] {
    let bench = try DriverBench(model)
    let filter = try #require(bench.device as? any FrameFilter)
    var queue = try bench.device.receiveQueue(0, mempool: bench.pool)
    var batch = PacketBatch(capacity: 64)
    try setUp(filter)
    model.arriving = frames
    _ = model.step()
    _ = try queue.receive(into: &batch, max: 64)
    let seen = batch.takeFrames()
    return frames.indices.filter { seen.contains(frames[$0]) }
  }

  private func frame(to address: String) throws -> [UInt8] {
    let address = try #require(MACAddress(address))
    return (0..<6).map { address[$0] } + testFrame(1)[6...]
  }

  private func frame(vlan: Int) -> [UInt8] {
    var frame = testFrame(2, length: 64, type: 0x8100)
    (frame[14], frame[15]) = (UInt8(vlan >> 8), UInt8(vlan & 0xFF))
    return frame
  }

  private func addressed() throws -> [[UInt8]] {
    try [
      "52:54:00:12:34:56", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:07", "01:00:5e:00:00:fb",
      "01:00:5e:01:02:03",
    ].map { try frame(to: $0) }
  }

  @Test(arguments: kinds) func `at first its own and broadcast frames come`(
    kind: GigabitModel.Kind
  ) throws {
    #expect(try received(addressed(), by: GigabitModel(kind)) { _ in } == [0, 1])
  }

  @Test(arguments: kinds) func `promiscuous mode lets all frames in`(
    kind: GigabitModel.Kind
  ) throws {
    #expect(
      try received(addressed(), by: GigabitModel(kind)) { try $0.setPromiscuous(true) }
        == [0, 1, 2, 3, 4])
    let again = try received(addressed(), by: GigabitModel(kind)) {
      try $0.setPromiscuous(true)
      try $0.setPromiscuous(false)
    }
    #expect(again == [0, 1])
  }

  @Test(arguments: kinds) func `multicast groups are let in by their hash`(
    kind: GigabitModel.Kind
  ) throws {
    let group = try #require(MACAddress("01:00:5e:00:00:fb"))
    let other = try #require(MACAddress("01:00:5e:01:02:03"))
    #expect(
      try received(addressed(), by: GigabitModel(kind)) { try $0.setMulticast([group]) }
        == [0, 1, 3])
    let changed = try received(addressed(), by: GigabitModel(kind)) {
      try $0.setMulticast([group])
      try $0.setMulticast([other])
      #expect($0.macAddress == MACAddress("52:54:00:12:34:56"))
    }
    #expect(changed == [0, 1, 4])
  }

  @Test(arguments: kinds) func `another address takes the place of the card's own`(
    kind: GigabitModel.Kind
  ) throws {
    let address = try #require(MACAddress("02:00:00:00:00:07"))
    let seen = try received(addressed(), by: GigabitModel(kind)) {
      try $0.setMACAddress(address)
      #expect($0.macAddress == address)
      #expect(throws: DeviceError.self) { [device = $0] in
        try device.setMACAddress(MACAddress(bits: 0xFFFF_FFFF_FFFF))
      }
      #expect(throws: DeviceError.self) { [device = $0] in try device.setMulticast([address]) }
    }
    #expect(seen == [1, 2])
  }

  @Test(arguments: kinds) func `the VLANs that are asked for come with their tags`(
    kind: GigabitModel.Kind
  ) throws {
    let frames = [testFrame(0)] + [0, 1, 31, 32, 4095].map { frame(vlan: $0) }
    #expect(try received(frames, by: GigabitModel(kind)) { _ in } == [0, 1, 2, 3, 4, 5])
    let some = try received(frames, by: GigabitModel(kind)) { try $0.setVLANs([1, 32, 4095]) }
    #expect(some == [0, 2, 4, 5])
    let all = try received(frames, by: GigabitModel(kind)) {
      try $0.setVLANs([1])
      try $0.setVLANs(nil)
      #expect(throws: DeviceError.self) { [device = $0] in try device.setVLANs([4096]) }
    }
    #expect(all == [0, 1, 2, 3, 4, 5])
  }

  @Test(arguments: kinds) func `the card's counters are added up`(
    kind: GigabitModel.Kind
  ) throws {
    let model = GigabitModel(kind)
    let bench = try DriverBench(model)
    model[0x4000] = 3  // CRCERRS
    model[0x40AC] = 4  // ROC
    model[0x4010] = 5  // MPC
    #expect(bench.device.statistics().receiveErrors == 7)
    #expect(bench.device.statistics().receiveDropped == 5)
    model[0x4000] = 2
    #expect(bench.device.statistics().receiveErrors == 9)
    model.isGone = true
    #expect(bench.device.statistics().receiveErrors == 9)
  }
}
