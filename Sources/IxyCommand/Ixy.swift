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
        0000:03:00.0, 03:00.0      a PCI card of this machine
        emu:82599,wire=WIRE        an emulated card; also emu:x540, emu:x550
        vfio-user:PATH             a card that another process serves (ixy emulate)

      A WIRE is one of
        tap,name=NAME              an interface of Linux
        pcap,in=FILE,out=FILE      capture files, one of which may be left out
        link,peer=NAME             another emulated card with the same peer
        dgram,local=PATH,remote=PATH
        generator,count=N,rate=R,size=S,flows=F
        sink, loop
      and takes mac=ADDRESS, and lose=N and swap=N for a bad cable: one frame in N.
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
        throw DeviceError.system(
          "Write to standard output", errno: code, advice: "Make room where it goes.")
      }
    } catch { exit(withError: error) }
  }
}
