import Testing

@testable import Ixy

@Suite struct AddressTests {
  @Test(arguments: [
    ("0000:03:00.0", "0000:03:00.0"), ("03:00.0", "0000:03:00.0"), ("3:1f.7", "0000:03:1f.7"),
    ("10000:e1:00.0", "10000:e1:00.0"), ("0000:FF:1F.7", "0000:ff:1f.7"),
  ])
  func `a PCI address is read in its short and its long form`(text: String, long: String) {
    #expect(PCIAddress(text)?.description == long)
  }

  @Test(arguments: [
    "", "eth0", "03:00", "03.0", "0000:03:00.8", "0000:03:20.0", "0000:100:00.0", "0:0:0:0.0",
    "-3:00.0", "+3:00.0", "03:00.0 ", "03:00.0.0", ":00.0", "0000::00.0", "../03:00.0",
  ])
  func `what is no PCI address is refused`(text: String) {
    #expect(PCIAddress(text) == nil)
  }

  @Test func `a MAC address is printed as it was read`() {
    #expect(MACAddress("02:1b:21:00:Fe:01")?.description == "02:1b:21:00:fe:01")
    #expect(MACAddress("02:1b:21:00:Fe:01")?[0] == 0x02)
    #expect(MACAddress("01:00:5e:00:00:01")?.isMulticast == true)
  }

  @Test(arguments: [
    "", "02:1b:21:00:fe", "02:1b:21:00:fe:01:02", "2:1b:21:00:fe:01", "02:1b:21:00:fe:0g",
    "02-1b-21-00-fe-01", "02:1b:21::fe:01", "+2:1b:21:00:fe:01",
  ])
  func `what is no MAC address is refused`(text: String) {
    #expect(MACAddress(text) == nil)
  }
}
