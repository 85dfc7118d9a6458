import Testing

@testable import Emulation

@Suite struct AddressFilterTests {
  private static let broadcast = [UInt8](repeating: 0xFF, count: 6)
  private static let group: [UInt8] = [0x01, 0x00, 0x5E, 0x12, 0x34, 0x56]

  /// Whether a frame to `destination` is stored by a rig that `change` has set up.
  private func takes(
    _ destination: [UInt8], tag: UInt16? = nil, status: UInt32? = nil,
    _ change: (EngineRig) -> Void = { _ in }
  ) throws -> Bool {
    let rig = try EngineRig()
    change(rig)
    rig.startReceive()
    let frame = TestFrames.ethernet(to: destination, tag: tag, [])
    #expect(rig.receive(frame) == 1)
    let found = rig.received(0)
    if found.isDone {
      #expect(rig.take(0x4074) == 1)
      if let status { #expect(found.status == status) }
    } else {
      #expect(rig.take(0x4074) == 0)
      #expect(rig.take(0x40D0) == 1, "TPR counts what is not ours")
      #expect(rig.take(0x40C0) == 64, "TORL too")
    }
    return found.isDone
  }

  @Test func `only the card's own address is taken`() throws {
    #expect(try takes(EngineRig.mac))
    for i in 0..<6 {
      var other = EngineRig.mac
      other[i] ^= 0x80
      #expect(try !takes(other))
    }
    #expect(try !takes([0, 0, 0, 0, 0, 0]))
  }

  @Test func `an address without its valid bit is not one`() throws {
    #expect(try !takes(EngineRig.mac) { $0.set(0x0A204, 0x5544) })
    #expect(try !takes([0, 0, 0, 0, 0, 0]) { $0.set(0x0A204, 0) })
  }

  @Test(arguments: [1, 15, 16, 127])
  func `any of 128 addresses is taken`(index: Int) throws {
    let other: [UInt8] = [2, 9, 8, 7, 6, 5]
    #expect(try takes(other) { $0.setAddress(index, other) })
    #expect(try takes(EngineRig.mac) { $0.setAddress(index, other) })
  }

  @Test func `UPE takes every unicast address and no group`() throws {
    let promiscuous = { (rig: EngineRig) in rig.set(0x5080, 1 << 9) }
    #expect(try takes([4, 0, 0, 0, 0, 0], promiscuous))
    #expect(try takes([0, 0, 0, 0, 0, 0], promiscuous))
    #expect(try !takes(Self.group, promiscuous))
    #expect(try !takes(Self.broadcast, promiscuous))
  }

  @Test func `MPE takes every group and the broadcast address`() throws {
    let promiscuous = { (rig: EngineRig) in rig.set(0x5080, 1 << 8) }
    #expect(try takes(Self.group, promiscuous))
    #expect(try takes(Self.broadcast, promiscuous))
    #expect(try !takes([4, 0, 0, 0, 0, 0], promiscuous))
  }

  @Test func `BAM takes the broadcast address`() throws {
    #expect(try takes(Self.broadcast) { $0.set(0x5080, 1 << 10) })
    #expect(try !takes(Self.broadcast) { $0.set(0x5080, 0) })
    #expect(try !takes(Self.group) { $0.set(0x5080, 1 << 10) })
  }

  @Test(arguments: [(0, 0x563), (1, 0xAC6), (2, 0x58D), (3, 0x634)])
  func `the multicast table has a bit for a group under each offset`(
    offset: UInt32, place: Int
  ) throws {
    // 34:56 under the shifts of the reference, section 5: a hash of 12 bits.
    let expected = [
      0x34 >> 4 | 0x56 << 4, 0x34 >> 3 | 0x56 << 5, 0x34 >> 2 | 0x56 << 6, 0x34 | 0x56 << 8,
    ]
    #expect(place == expected[Int(offset)] & 0xFFF)
    let set = { (rig: EngineRig) in
      rig.set(0x5090, 1 << 2 | offset)
      rig.set(0x5200 + 4 * (place >> 5), 1 << UInt32(place & 31))
    }
    #expect(try takes(Self.group, status: 0x83, set), "PIF: other groups share the bit")
    #expect(try !takes([0x01, 0x00, 0x5E, 0x12, 0x34, 0x57], set))
    #expect(try !takes(Self.group) { $0.set(0x5200 + 4 * (place >> 5), .max) }, "MFE is off")
  }

  @Test func `a group among the receive addresses is taken`() throws {
    #expect(try takes(Self.group, status: 0x3) { $0.setAddress(3, Self.group) })
  }

  @Test func `VFE takes only tags of the VLANs in the table`() throws {
    let set = { (rig: EngineRig) in
      rig.set(0x5088, 1 << 30 | 0x8100)
      rig.set(0xA000 + 4 * (1234 >> 5), 1 << UInt32(1234 & 31))
    }
    #expect(try takes(EngineRig.mac, tag: 1234, set))
    #expect(try takes(EngineRig.mac, tag: 0xF000 | 1234, set), "the priority does not count")
    #expect(try !takes(EngineRig.mac, tag: 1235, set))
    #expect(try !takes(EngineRig.mac, tag: 0, set))
    #expect(try takes(EngineRig.mac, set), "no tag")
    #expect(try takes(EngineRig.mac, tag: 1235), "the filter is off")
  }

  @Test func `the VLAN filter holds for promiscuous cards too`() throws {
    #expect(
      try !takes(EngineRig.mac, tag: 5) {
        $0.set(0x5080, 7 << 8)
        $0.set(0x5088, 1 << 30 | 0x8100)
      })
  }

  @Test func `CFIEN takes only tags with the CFI that is set`() throws {
    let wantsSet = { (rig: EngineRig) in rig.set(0x5088, 1 << 29 | 1 << 28 | 0x8100) }
    #expect(try takes(EngineRig.mac, tag: 0x1005, wantsSet))
    #expect(try !takes(EngineRig.mac, tag: 0x0005, wantsSet))
    let wantsClear = { (rig: EngineRig) in rig.set(0x5088, 1 << 29 | 0x8100) }
    #expect(try !takes(EngineRig.mac, tag: 0x1005, wantsClear))
    #expect(try takes(EngineRig.mac, tag: 0x0005, wantsClear))
  }

  @Test func `broadcasts and multicasts are counted apart`() throws {
    let rig = try EngineRig()
    rig.set(0x5080, 7 << 8)
    rig.startReceive()
    rig.receive(
      TestFrames.plain(60, to: Self.broadcast), TestFrames.plain(60, to: Self.group),
      TestFrames.plain(60, to: Self.group), TestFrames.plain(60))
    #expect(rig.take(0x4078) == 1, "BPRC")
    #expect(rig.take(0x407C) == 2, "MPRC")
    #expect(rig.take(0x405C) == 4, "PRC64")
  }
}
