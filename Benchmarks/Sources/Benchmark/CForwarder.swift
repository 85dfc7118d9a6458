import Glibc
import StandIns

/// The C forwarder of `Benchmarks/C`, as one compiler made it.
struct CForwarder {
  typealias Forward = @convention(c) (UnsafeMutableRawPointer, UInt32) -> Void
  private typealias Open =
    @convention(c) (UnsafeMutablePointer<standin>) -> UnsafeMutableRawPointer

  /// The compiler's name.
  let name: String
  private let handle: UnsafeMutableRawPointer

  init?(name: String, path: String) {
    guard let handle = dlopen(path, RTLD_NOW) else { return nil }
    self.name = name
    self.handle = handle
  }

  /// A forwarder with rings of its own, on a card of its own.
  func open(_ driver: String) -> (
    card: UnsafeMutablePointer<standin>, state: UnsafeMutableRawPointer
  ) {
    let card = UnsafeMutablePointer<standin>.allocate(capacity: 1)
    card.initialize(to: standin())
    return (card, function("\(driver)_open", as: Open.self)(card))
  }

  /// The function of a driver's design.
  func forward(_ driver: String, _ design: String) -> Forward {
    function("\(driver)_\(design)", as: Forward.self)
  }

  private func function<T>(_ name: String, as type: T.Type) -> T {
    guard let symbol = dlsym(handle, name) else { fatalError("\(self.name): no \(name)") }
    return unsafeBitCast(symbol, to: type)
  }
}
