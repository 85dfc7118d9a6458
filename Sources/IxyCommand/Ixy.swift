import ArgumentParser
import Ixy

/// `ixy`: drives network cards, real and emulated, from user space.
@main
struct IxyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ixy",
    abstract: "Drives network cards from user space: real ones, and emulated ones.",
    discussion: """
      A CARD is one of
        0000:03:00.0, 03:00.0                  a PCI card of this machine
        emu:82599,wire=tap,name=ixy0           an emulated card in this process; also emu:x540, emu:x550
        emu:82599,wire=pcap,in=a.pcap,out=b.pcap
        vfio-user:PATH                         a card that another process serves (ixy emulate)

      The wires of an emulated card: link,peer=NAME  tap,name=NAME  pcap,in=FILE,out=FILE
      dgram,local=PATH,remote=PATH  generator,count=N,rate=R,size=S,flows=F  sink  loop
      With each of them: mac=ADDRESS, and a bad cable with lose=N, swap=N: one frame in N.
      """,
    version: "ixy 0.1.0",
    subcommands: [
      DemoCommand.self, ForwardCommand.self, PktgenCommand.self, SinkCommand.self, DumpCommand.self,
      ReplayCommand.self, EchoCommand.self,
      InfoCommand.self, TraceCommand.self, DoctorCommand.self,
      EmulateCommand.self, BenchCommand.self, ListCommand.self, BindCommand.self,
      FinishCapture.self,
    ])

  /// Runs the command that was typed; what could not be written out is an error, though all else went well.
  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
      let code = StopSignal.outputError.load(ordering: .relaxed)
      if code != 0 {
        throw DeviceError.system("Write to standard output", errno: code, advice: "")
      }
    } catch { exit(withError: error) }
  }
}
