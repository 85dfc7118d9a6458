import Foundation
import Synchronization

/// Whether the user wants the command to end: Ctrl-C and its relatives set it.
///
/// Commands look at it in their loops and leave by their usual way out, so that queues and cards are
/// stopped and summaries printed.
enum StopSignal {
  private static let isSet = Atomic(false)
  /// The `errno` of output that could not be written; 0 as long as all could.
  static let outputError = Atomic<Int32>(0)

  /// Ends commands on SIGINT, SIGTERM and SIGHUP; a closed pipe becomes an error of the write.
  static func install() {
    // Made now: the handler must not be the first to touch it.
    _ = isRaised
    var ours = sigset_t()
    unsafe sigemptyset(&ours)
    for number in [SIGINT, SIGTERM, SIGHUP] {
      signal(number) { _ in StopSignal.isSet.store(true, ordering: .relaxed) }
      unsafe sigaddset(&ours, number)
    }
    // Whoever started us may have blocked them.
    unsafe sigprocmask(SIG_UNBLOCK, &ours, nil)
    signal(SIGPIPE, SIG_IGN)
  }

  /// Ends the command as Ctrl-C does.
  static func raise() { isSet.store(true, ordering: .relaxed) }

  static var isRaised: Bool { isSet.load(ordering: .relaxed) }
}
