import Ixy
import Testing

@testable import Emulation

@Suite struct CardDescriptionTests {
  private static func settings(_ change: (inout GeneratorWire.Settings) -> Void)
    -> GeneratorWire.Settings
  {
    var settings = GeneratorWire.Settings()
    change(&settings)
    return settings
  }

  @Test(
    arguments: [
      ("emu:82599,wire=tap,name=ixy0", .tap(name: "ixy0")),
      ("emu:82599,name=ixy0,wire=tap", .tap(name: "ixy0")),
      ("emu:82599,wire=tap", .tap(name: nil)),
      ("emu:82599,wire=pcap,in=a.pcap,out=b.pcap", .pcap(input: "a.pcap", output: "b.pcap")),
      ("emu:82599,wire=pcap,out=b.pcap", .pcap(input: nil, output: "b.pcap")),
      ("emu:82599,wire=pcap", .pcap(input: nil, output: nil)),
      ("emu:82599,wire=pcap,in=a,,b=c.pcap", .pcap(input: "a,b=c.pcap", output: nil)),
      ("emu:82599,wire=link,peer=x", .link(peer: "x")),
      ("emu:82599,wire=dgram,local=/a,remote=/b", .datagram(local: "/a", remote: "/b")),
      ("emu:82599,wire=sink", .sink), ("emu:82599,wire=loop", .loop), ("emu:82599", .loop),
      ("emu:82599,wire=generator", .generator(settings { _ in })),
      (
        "emu:82599,wire=generator,count=200000,rate=1Mpps,size=1514,flows=32768",
        .generator(
          settings {
            $0.count = 200_000
            $0.rate = .frames(1e6)
            $0.size = 1514
            $0.flows = 32768
          })
      ),
      (
        "emu:82599,wire=generator,rate=500Mbit,count=18446744073709551615",
        .generator(
          settings {
            $0.count = .max
            $0.rate = .bits(5e8)
          })
      ),
    ] as [(String, WireDescription)])
  func `a wire has its options`(text: String, wire: WireDescription) throws {
    #expect(try CardDescription(text).wire == wire)
  }

  @Test(arguments: [("82599", CardFamily.nic82599), ("x540", .x540), ("X550", .x550)])
  func `a card has its family`(name: String, family: CardFamily) throws {
    #expect(try CardDescription("emu:\(name),wire=sink").family == family)
  }

  @Test func `every wire takes an address for the card`() throws {
    for wire in [
      "tap", "link,peer=x", "pcap", "dgram,local=a,remote=b", "generator", "sink", "loop",
    ] {
      let card = try CardDescription("emu:82599,wire=\(wire),mac=02:00:00:00:00:09")
      #expect(card.macAddress == MACAddress(bits: 0x02_00_00_00_00_09))
    }
  }

  @Test func `a wire can be given apart from its card`() throws {
    let card = try CardDescription(family: "82599", wire: "generator,count=7,mac=02:00:00:00:00:09")
    #expect(card.wire == .generator(Self.settings { $0.count = 7 }))
    #expect(card.macAddress == MACAddress(bits: 0x02_00_00_00_00_09))
    #expect(card.text == "emu:82599,wire=generator,count=7,mac=02:00:00:00:00:09")
  }

  @Test(arguments: [
    ("", "begins with \"emu:\""),
    ("emu", "begins with"),
    ("82599", "begins with"),
    ("emu:", "no emulated card \"\". There are 82599, x540, x550."),
    ("emu:82598,wire=tap", "no emulated card \"82598\". There are 82599, x540, x550."),
    ("emu:82599 ,wire=tap", "no emulated card \"82599 \""),
    (
      "emu:82599,wire=cable",
      "no wire \"cable\". There are dgram, generator, link, loop, pcap, sink, tap."
    ),
    ("emu:82599,wire=", "option wire has no value"),
    ("emu:82599,wire", "\"wire\" is no option"),
    ("emu:82599,", "\"\" is no option"),
    ("emu:82599,wire=tap,", "\"\" is no option"),
    ("emu:82599,=tap", "\"=tap\" is no option"),
    ("emu:82599,wire=tap,name=", "option name has no value"),
    ("emu:82599,wire=tap,name=a,name=b", "option name is given twice"),
    ("emu:82599,wire=tap,wire=tap", "option wire is given twice"),
    (
      "emu:82599,wire=tap,nam=a",
      "wire tap has no option \"nam\". The options of this wire are lose, mac, name, swap."
    ),
    ("emu:82599,wire=sink,name=a", "wire sink has no option \"name\""),
    ("emu:82599,name=a", "wire loop has no option \"name\""),
    ("emu:82599,wire=link", "wire link needs the option peer="),
    ("emu:82599,wire=dgram,local=a", "wire dgram needs the option remote="),
    ("emu:82599,wire=dgram,remote=a", "wire dgram needs the option local="),
    ("emu:82599,wire=generator,count=0", "count=0 is out of range. Give a whole number from 1."),
    ("emu:82599,wire=generator,count=-1", "count=-1 is out of range"),
    ("emu:82599,wire=generator,count=+1", "count=+1 is out of range"),
    ("emu:82599,wire=generator,count=18446744073709551616", "is out of range"),
    ("emu:82599,wire=generator,count=ten", "count=ten is out of range"),
    (
      "emu:82599,wire=generator,size=59",
      "size=59 is out of range. Give a whole number from 60 to 16384."
    ),
    ("emu:82599,wire=generator,size=16385", "size=16385 is out of range"),
    ("emu:82599,wire=generator,flows=0", "flows=0 is out of range"),
    ("emu:82599,wire=generator,flows=32769", "from 1 to 32768"),
    ("emu:82599,wire=generator,rate=fast", "rate=fast is no rate. Give frames or bits a second"),
    ("emu:82599,wire=generator,rate=0", "rate=0 is no rate"),
    ("emu:82599,mac=1", "mac=1 is no address of a card"),
    ("emu:82599,mac=01:00:00:00:00:00", "is no address of a card"),
    ("emu:82599,mac=00:00:00:00:00:00", "is no address of a card"),
    ("emu:82599,mac=ff:ff:ff:ff:ff:ff", "is no address of a card"),
    ("emu:82599,wire=tap,name=sixteen-bytes-16", "cannot name an interface"),
    ("emu:82599,wire=tap,name=a/b", "cannot name an interface"),
    ("emu:82599,wire=tap,name=a b", "cannot name an interface"),
    ("emu:82599,wire=tap,name=a%d", "cannot name an interface"),
    ("emu:82599,wire=tap,name=..", "cannot name an interface"),
  ])
  func `a mistake is named`(text: String, part: String) {
    let message = message { _ = try CardDescription(text) }
    #expect(message.contains(part), "\(message)")
    #expect(message.hasPrefix("Read \"\(text)\": "))
  }
}

@Suite struct PatchPanelTests {
  private func card(_ text: String) throws -> CardDescription {
    try CardDescription("emu:82599,\(text)")
  }

  @Test func `two cards with the same peer are cabled together`() throws {
    let panel = PatchPanel()
    let a = try panel.plugIn(card("wire=link,peer=x")).wire
    _ = try panel.plugIn(card("wire=link,peer=y"))
    let b = try panel.plugIn(card("wire=link,peer=x")).wire
    b.receiverChanged(isOn: true)
    a.send(bytes: frame(3, size: 60))
    #expect(b.take() == frame(3, size: 60))
  }

  @Test func `a peer that never comes is an error`() throws {
    let panel = PatchPanel()
    try panel.checkLinks()
    _ = try panel.plugIn(card("wire=link,peer=x"))
    #expect(message { try panel.checkLinks() }.contains("no other card has peer=x"))
    _ = try panel.plugIn(card("wire=link,peer=x"))
    try panel.checkLinks()
  }

  @Test func `a cable has no third end`() throws {
    let panel = PatchPanel()
    _ = try panel.plugIn(card("wire=link,peer=x"))
    _ = try panel.plugIn(card("wire=link,peer=x"))
    #expect(
      message { _ = try panel.plugIn(card("wire=link,peer=x")) }
        .contains("two cards have peer=x already"))
  }

  @Test func `no two cards get the same address`() throws {
    let panel = PatchPanel()
    let addresses = try (0..<3).map { _ in try panel.plugIn(card("wire=sink")).macAddress }
    #expect(Set(addresses).count == 3)
    #expect(addresses.allSatisfy { !$0.isMulticast })
    let given = try panel.plugIn(card("wire=sink,mac=02:00:00:00:00:09")).macAddress
    #expect(given == MACAddress(bits: 0x02_00_00_00_00_09))
  }

  @Test func `every kind of wire is what it says`() throws {
    let directory = try TemporaryDirectory()
    let (a, b) = (directory.file("a"), directory.file("b"))
    let panel = PatchPanel()
    for kind in [
      "link,peer=x", "pcap", "dgram,local=\(a),remote=\(b)", "generator", "sink", "loop",
    ] {
      let wire = try panel.plugIn(card("wire=\(kind)")).wire
      #expect(kind.hasPrefix(wire.kind))
    }
  }
}
