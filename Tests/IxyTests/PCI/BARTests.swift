import Testing

@testable import Ixy

@Suite struct BARTests {
  private static let control = Register<UInt32>(at: 8)

  @Test func `a register changes in place`() {
    let registers = FakeRegisters()
    let bar = ForwardedBAR(registers, size: 64)
    bar[Self.control] = 0xF0
    bar[Self.control][0...3] = 5
    #expect(registers.values[8] == 0xF5)
  }

  @Test func `a bit that never comes is a timeout with a message`() {
    let bar = ForwardedBAR(FakeRegisters(), size: 64)
    let error = #expect(throws: DeviceError.self) {
      try bar.wait(for: "a miracle", in: Self.control, of: "card", limit: .milliseconds(5)) {
        $0 == 1
      }
    }
    #expect(error?.description.contains("card: waited 0.005 seconds for a miracle") == true)
  }

  @Test func `all ones while waiting is a card that is gone`() {
    let registers = FakeRegisters()
    registers.values[8] = .max
    let bar = ForwardedBAR(registers, size: 64)
    let error = #expect(throws: DeviceError.self) {
      try bar.wait(for: "anything", in: Self.control, of: "card") { $0 != 0 }
    }
    guard case .gone = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }
}

private final class FakeRegisters: RegisterAccess {
  var values: [Int: UInt64] = [:]
  func read(_ offset: Int, width: Int) -> UInt64 { values[offset, default: 0] }
  func write(_ value: UInt64, to offset: Int, width: Int) { values[offset] = value }
}
