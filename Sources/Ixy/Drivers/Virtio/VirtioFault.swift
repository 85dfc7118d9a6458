/// What a device did against the rules of a ring, through which nothing goes from then on.
@usableFromInline enum VirtioFault {
  /// It says that it used more entries than it has.
  case tooMany(Int, of: Int)
  /// It used an identifier that it does not have.
  case unknown(Int)
  /// It has a frame of more buffers than there are.
  case tooLong(Int, of: Int)
}

extension VirtioDevice {
  /// The error for it; receive queue n is 2n, transmit queue n is 2n + 1.
  func error(_ fault: VirtioFault, in queue: Int) -> DeviceError {
    let what =
      switch fault {
      case .tooMany(let count, let all): "says that it used \(count) of \(all) entries"
      case .unknown(let id): "used identifier \(id), which it does not have"
      case .tooLong(let count, let all): "has a frame of \(count) buffers, of \(all)"
      }
    let way = queue % 2 == 0 ? "receive" : "transmit"
    return .misbehaved(device: name, "\(way) queue \(queue / 2) \(what)")
  }
}
