import Ixy

/// The cards that can be emulated, by the name that users give them.
public enum CardFamily: String, CaseIterable, Sendable {
  /// The 82599, with SFP+.
  case nic82599 = "82599"
  /// The X540, with a 10GBASE-T PHY.
  case x540
  /// The X550, with a 10GBASE-T PHY.
  case x550
}

/// Where the cable of an emulated card shall go.
public enum WireDescription: Equatable, Sendable {
  /// To the other card that names the same peer.
  case link(peer: String)
  /// To a tap interface; nil lets the kernel choose its name.
  case tap(name: String?)
  /// To capture files, one of which may be left out.
  case pcap(input: String?, output: String?)
  /// To another process over Unix datagram sockets.
  case datagram(local: String, remote: String)
  /// To a source of numbered frames.
  case generator(GeneratorWire.Settings)
  /// To nowhere, but counted.
  case sink
  /// Back into the card.
  case loop
}

/// An emulated card, as its user writes it: `emu:82599,wire=tap,name=ixy0`.
///
/// A comma within a value is written twice.
public struct CardDescription: Equatable, Sendable {
  /// What comes before the family.
  public static let prefix = "emu:"

  /// What the user wrote.
  public let text: String
  /// Which card.
  public let family: CardFamily
  /// Its cable; without `wire=` it loops back.
  public let wire: WireDescription
  /// What is wrong with its cable (`lose=`, `swap=`).
  public let faults: LossyWire.Faults
  /// The card's own address (`mac=`); nil leaves the choice to us.
  public let macAddress: MACAddress?

  /// Reads `emu:FAMILY,wire=KIND,OPTION=VALUE,...`; the options may come in any order.
  public init(_ text: String) throws(DeviceError) {
    let parser = OptionParser(text)
    guard text.hasPrefix(Self.prefix) else {
      throw parser.refuse(
        "an emulated card begins with \"\(Self.prefix)\"", "As in emu:82599,wire=sink.")
    }
    var words = OptionParser.split(text.dropFirst(Self.prefix.count))
    family = try Self.family(words.removeFirst(), parser)
    var options = try parser.options(words)
    let wireName = try options.take("wire") ?? "loop"
    self.text = text
    macAddress = try options.takeMACAddress()
    faults = try options.takeFaults()
    wire = try WireDescription(wireName, &options)
  }

  /// Reads a family and, apart from it, its wire: `82599` and `generator,count=1000`.
  public init(family: String, wire: String) throws(DeviceError) {
    text = "\(Self.prefix)\(family),wire=\(wire)"
    let familyParser = OptionParser(family)
    self.family = try Self.family(family, familyParser)
    let parser = OptionParser(wire)
    var words = OptionParser.split(wire[...])
    let wireName = words.removeFirst()
    var options = try parser.options(words)
    macAddress = try options.takeMACAddress()
    faults = try options.takeFaults()
    self.wire = try WireDescription(wireName, &options)
  }

  private static func family(_ name: String, _ parser: OptionParser) throws(DeviceError)
    -> CardFamily
  {
    if let family = CardFamily(rawValue: name.lowercased()) { return family }
    let known = CardFamily.allCases.map(\.rawValue).joined(separator: ", ")
    throw parser.refuse("there is no emulated card \"\(name)\"", "There are \(known).")
  }
}

extension WireDescription {
  /// A wire by its name, with all the options that are left.
  fileprivate init(_ name: String, _ options: inout Options) throws(DeviceError) {
    guard let make = Self.kinds[name] else {
      let known = Self.kinds.keys.sorted().joined(separator: ", ")
      throw options.parser.refuse("there is no wire \"\(name)\"", "There are \(known).")
    }
    self = try make(&options)
    try options.checkNoneLeft(of: name)
  }

  private typealias Maker = @Sendable (inout Options) throws(DeviceError) -> WireDescription

  private static let kinds: [String: Maker] = [
    "link": { options throws(DeviceError) in
      .link(peer: try options.require("peer", of: "link"))
    },
    "tap": { options throws(DeviceError) in
      .tap(name: try options.takeInterfaceName())
    },
    "pcap": { options throws(DeviceError) in
      try .pcap(input: options.take("in"), output: options.take("out"))
    },
    "dgram": { options throws(DeviceError) in
      try .datagram(
        local: options.require("local", of: "dgram"),
        remote: options.require("remote", of: "dgram"))
    },
    "generator": { options throws(DeviceError) in
      var settings = GeneratorWire.Settings()
      settings.count = try options.takeNumber("count", in: 1 ... .max)
      settings.rate = try options.takeRate()
      let sizes = UInt64(FrameSize.minimum)...UInt64(FrameSize.maximum)
      if let size = try options.takeNumber("size", in: sizes) { settings.size = Int(size) }
      let flows = 1...UInt64(TestFrame.maximumFlows)
      if let count = try options.takeNumber("flows", in: flows) { settings.flows = Int(count) }
      return .generator(settings)
    },
    "sink": { _ throws(DeviceError) in .sink },
    "loop": { _ throws(DeviceError) in .loop },
  ]
}
