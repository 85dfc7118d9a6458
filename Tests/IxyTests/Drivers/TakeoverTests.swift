import Emulation
import Testing

@testable import DriverModels
@testable import Ixy

/// A card whose owner was killed: its rings still lead to memory that is somebody else's now.
@Suite struct TakeoverTests {
  /// What resets a card: its BAR, the register and what is written.
  struct Reset: Sendable {
    var bar = 0
    var offset = 0
    var value: @Sendable (UInt64) -> Bool

    /// RST in CTRL of all cards of Intel's.
    static let intel = Reset { $0 & 1 << 26 != 0 }
  }

  @Test func `no card starts DMA before its reset`() throws {
    let wire = TestWire()
    let cards: [(any DeviceModel, Reset)] = [
      (try NIC82599(wire: wire, mac: MACAddress(bits: 0x02_00_00_00_00_01)), .intel),
      (GigabitModel(.e1000e), .intel), (GigabitModel(.igb), .intel),
      // Status 0 of the common configuration.
      (VirtioModel(), Reset(bar: 4, offset: 20) { $0 == 0 }),
      (VirtioModel(.legacy), Reset(bar: 0, offset: 18) { $0 == 0 }),
      // The command RESET_DEV.
      (Vmxnet3Model(), Reset(bar: 1, offset: 0x20) { $0 == 0xCAFE_0002 }),
    ]
    for (model, reset) in cards {
      model.writeConfig(0b111, to: 4, width: 2)
      let card = LoggedDevice(model)
      let domain = DMADomain()
      // A legacy device knows nothing but the machine's addresses.
      if (model as? VirtioModel)?.kind == .legacy { domain.addressing = PretendedPhysical() }
      let device = try openDevice(card, domain: domain)
      let resets = card.writes.indices.filter {
        let write = card.writes[$0]
        return write.bar == reset.bar && write.offset == reset.offset && reset.value(write.value)
      }
      let first = try #require(resets.first, "\(device.driverName)")
      let tooEarly = card.writes[...first].filter(\.isBusMaster)
      #expect(tooEarly.isEmpty, "\(device.driverName)")
      #expect(model.readConfig(4, width: 2) & 0b100 != 0, "\(device.driverName)")
    }
  }
}
