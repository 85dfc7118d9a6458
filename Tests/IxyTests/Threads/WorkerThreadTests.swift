import Glibc
import Synchronization
import Testing

@testable import Ixy

@Suite struct WorkerThreadTests {
  struct Owned: ~Copyable {
    var number: Int
    var cores = ""
    let ended: Counter
    init(_ number: Int, _ ended: Counter) {
      self.number = number
      self.ended = ended
    }
    deinit { ended.count.add(1, ordering: .relaxed) }
  }
  final class Counter: Sendable { let count = Atomic(0) }
  struct Failure: Error {}

  @Test func `what a thread owned comes back changed`() throws {
    let ended = Counter()
    let thread = try WorkerThread("one", owning: Owned(20, ended)) { $0.number += 1 }
    let back = try thread.join()
    #expect(thread.isOver)
    #expect(back.number == 21)
    #expect(ended.count.load(ordering: .relaxed) == 0)
    _ = consume back
    #expect(ended.count.load(ordering: .relaxed) == 1)
  }

  @Test func `what the body throws comes out of join, and what it owned is dropped once`() throws {
    let ended = Counter()
    let thread = try WorkerThread("one", owning: Owned(20, ended)) { _ in throw Failure() }
    #expect(throws: Failure.self) { _ = try thread.join() }
    #expect(ended.count.load(ordering: .relaxed) == 1)
  }

  @Test func `a thread that nobody joins drops what it owns when it ends`() throws {
    let (ended, mayEnd) = (Counter(), Counter())
    do {
      _ = try WorkerThread("one", owning: Owned(20, ended)) { _ in
        while mayEnd.count.load(ordering: .relaxed) == 0 { usleep(1000) }
      }
    }
    #expect(ended.count.load(ordering: .relaxed) == 0)
    mayEnd.count.store(1, ordering: .relaxed)
    for _ in 0..<60_000 where ended.count.load(ordering: .relaxed) == 0 { usleep(1000) }
    #expect(ended.count.load(ordering: .relaxed) == 1)
  }

  @Test func `a thread stays on its cores`() throws {
    for core in Cores.allowed.numbers {
      let thread = try WorkerThread("one", on: Cores([core]), owning: Owned(0, Counter())) {
        // What the kernel says of this thread, beside our own way to ask.
        let status = contents(of: "/proc/thread-self/status") ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("Cpus_allowed_list:") }
        $0.cores = String(line?.split(separator: "\t").last ?? "")
        $0.number = Cores.allowed.numbers.first ?? -1
      }
      let back = try thread.join()
      #expect(back.cores == "\(core)" && back.number == core)
    }
    // The starter is where it was.
    #expect(Cores.allowed.numbers.count >= 1)
  }

  @Test func `cores that are not ours are refused`() throws {
    let foreign = (0..<Cores.limit).first { !Cores.allowed.numbers.contains($0) }
    let cores = Cores([try #require(foreign)])
    #expect(throws: DeviceError.self) {
      _ = try WorkerThread("one", on: cores, owning: Owned(0, Counter())) { _ in }
    }
    #expect(throws: DeviceError.self) {
      _ = try WorkerThread("one", on: Cores([]), owning: Owned(0, Counter())) { _ in }
    }
    #expect(throws: DeviceError.self) { try cores.pinThread() }
  }
}

@Suite struct CoresTests {
  @Test(arguments: [
    ("0", [0]), ("2,3", [2, 3]), ("0-3", [0, 1, 2, 3]), ("0-1,8,10-11", [0, 1, 8, 10, 11]),
    ("5,4,4", [4, 5]), ("4095", [4095]),
  ])
  func `the kernel's lists are read`(text: String, numbers: [Int]) {
    #expect(Cores(text)?.numbers == numbers)
  }

  @Test(arguments: [
    "", ",", "1,", "-1", "1-", "3-2", "a", "1-2-3", "+1", "0x1", "4096", "0-99999999999999999999",
    " 1", "1 ", "1--2", "٣x",
  ])
  func `anything else is none`(text: String) {
    #expect(Cores(text) == nil)
  }

  @Test func `they are written as the kernel does`() {
    #expect(Cores([3, 1, 2, 8, 10, 11]).description == "1-3,8,10-11")
    #expect(Cores([]).description == "")
    #expect(Cores([-1, 4096]).numbers == [])
  }
}
