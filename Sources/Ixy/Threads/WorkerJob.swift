import CIxy
import Synchronization

/// What a thread runs.
class Job {
  func run() {}
}

/// A body, and what it works on; between start and join only the thread looks at it.
final class WorkerJob<Work: ~Copyable>: Job {
  var work: Work?
  var failure: (any Error)?
  let isOver = Atomic(false)
  private let name: String
  private let cores: Cores?
  private let body: @Sendable (inout Work) throws -> Void

  init(
    _ work: consuming Work, _ name: String, _ cores: Cores?,
    _ body: @escaping @Sendable (inout Work) throws -> Void
  ) {
    self.work = consume work
    self.name = name
    self.cores = cores
    self.body = body
  }

  override func run() {
    unsafe ixy_set_thread_name(name)
    // On this thread's own stack, where no other thread's memory is near.
    guard var work = work.take() else { return }
    do {
      try cores?.pinThread()
      try body(&work)
    } catch {
      failure = error
    }
    self.work = consume work
    isOver.store(true, ordering: .releasing)
  }
}
