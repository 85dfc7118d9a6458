import Foundation
import Ixy
import Testing

@testable import IxyCommand

/// What commands say of themselves, and at their end.
@Suite struct HelpTests {
  @Test func `each command is one line of eighty columns`() throws {
    let help = IxyCommand.helpMessage(columns: 80)
    let list = try #require(help.split(separator: "SUBCOMMANDS:\n").last)
    let commands = list.split(separator: "\n\n")[0].split(separator: "\n")
    #expect(commands.count == 14)
    #expect(commands.allSatisfy { $0.hasPrefix("  ") && !$0.hasPrefix("   ") }, "\(commands)")
    #expect(help.split(separator: "\n").allSatisfy { $0.count <= 80 }, "\(help)")
  }

  @Test func `numbers show their defaults`() {
    #expect(ForwardCommand.helpMessage(columns: 200).contains("(1 to 512). (default: 32)"))
  }

  @Test func `frames that came after the end are named`() {
    var counts = Statistics()
    #expect(Reporter.total("a", counts, 1).contains("dropped 0 on arrival and 0 to send"))
    counts.receiveDropped = 7
    #expect(
      Reporter.total("a", counts, 1).contains("dropped 7 on arrival (those after the end, too)"))
  }

  @Test func `a message without advice ends with its sentence`() {
    #expect("\(DeviceError.refused("Try", found: "no", advice: ""))" == "Try: no.")
    #expect(
      "\(DeviceError.system("Try", errno: ENOENT, advice: ""))" == "Try: No such file or directory."
    )
    #expect("\(DeviceError.refused("Try", found: "no", advice: "Wait."))" == "Try: no. Wait.")
  }
}
