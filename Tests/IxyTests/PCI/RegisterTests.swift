import Testing

@testable import Ixy

@Suite struct RegisterTests {
  @Test(arguments: [0...0, 31...31, 0...31, 3...7, 16...31])
  func `a field leaves its neighbours alone`(field: ClosedRange<Int>) {
    let mask = UInt32.max >> (31 - UInt32(field.count - 1))
    for background in [UInt32.min, .max, 0xA5A5_5A5A] {
      var value = background
      value[field] = mask & 0x5A5A_A5A5
      #expect(value[field] == mask & 0x5A5A_A5A5)
      let outside = ~(mask << UInt32(field.lowerBound))
      #expect(value & outside == background & outside)
    }
  }
}
