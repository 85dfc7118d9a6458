import Glibc

/// A thread that owns what it works on: queues, mempools, ends of rings.
///
/// Ownership goes to the thread when it starts and comes back when it is joined. Whatever still has a way to the
/// same queue or mempool cannot be used by the starter meanwhile: the compiler sees to that.
///
/// ```swift
/// let thread = try WorkerThread("lane 0", on: Cores([2]), owning: lane) { lane in
///   while !isEnding.load(ordering: .relaxed) { lane.step() }
/// }
/// let lane = try thread.join()
/// ```
public final class WorkerThread<Work: ~Copyable> {
  private let job: WorkerJob<Work>
  private var thread: pthread_t?

  /// Starts a thread.
  ///
  /// - Parameters:
  ///   - name: What the kernel shows, of which it takes 15 bytes.
  ///   - cores: Where it runs; nil is where the starter may.
  ///   - work: What the thread owns until it is joined.
  ///   - body: What it does; its end is the thread's.
  /// - Throws: When this process may use none of the cores, or the kernel gives no thread.
  public init(
    _ name: String, on cores: Cores? = nil, owning work: consuming sending Work,
    body: @escaping @Sendable (inout Work) throws -> Void
  ) throws(DeviceError) {
    if let cores, cores.intersection(.allowed).numbers.isEmpty {
      throw .refused(
        "Run \(name) on core \(cores)", found: "this process may use \(Cores.allowed)",
        advice: "Choose some of these, or look at taskset and cgroups.")
    }
    job = WorkerJob(work, name, cores, body)
    var new = pthread_t()
    let context = unsafe Unmanaged<Job>.passRetained(job).toOpaque()
    let code = unsafe pthread_create(
      &new, nil,
      { context in
        guard let context = unsafe context else { return nil }
        unsafe Unmanaged<Job>.fromOpaque(context).takeRetainedValue().run()
        return nil
      }, unsafe context)
    if code != 0 {
      unsafe Unmanaged<Job>.fromOpaque(context).release()
      throw .system(
        "Start the thread \(name)", errno: code, advice: "Is there a limit (ulimit -u)?")
    }
    thread = new
  }

  deinit {
    if let thread { pthread_detach(thread) }
  }

  /// Whether its body has ended: `join` will not wait.
  public var isOver: Bool { job.isOver.load(ordering: .acquiring) }

  /// Waits for the end of the thread, once, and gives back what it owned.
  ///
  /// - Returns: What the thread owned.
  /// - Throws: What the body threw; what it owned is dropped then.
  public func join() throws -> Work {
    guard let thread else { preconditionFailure("a thread that was joined before") }
    pthread_join(thread, nil)
    self.thread = nil
    let work = job.work.take()
    if let failure = job.failure { throw failure }
    guard let work else { preconditionFailure("a thread that lost what it owned") }
    return work
  }
}
