import ArgumentParser
import CIxy
import Foundation
import Ixy
import Synchronization

/// Where the counters are served: `127.0.0.1:9000` or `[::1]:9000`.
struct MetricsAddress: TypedValue {
  /// What the user typed.
  let text: String
  /// `AF_INET` or `AF_INET6`, and the `sockaddr` of that family.
  fileprivate let family: Int32
  fileprivate let bytes: [UInt8]

  init(typed text: String) throws {
    var hints = unsafe addrinfo()
    unsafe hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    let colon = text.lastIndex(of: ":")
    let host = colon.map { text[..<$0].filter { !"[]".contains($0) } } ?? ""
    let port = colon.map { text[$0...].dropFirst() } ?? ""
    guard !host.isEmpty, UInt16(port) != nil,
      unsafe getaddrinfo(host, String(port), &hints, &found) == 0, let info = unsafe found?.pointee
    else {
      throw ValidationError(
        "give an address in numbers and a port, as in 127.0.0.1:9000 or [::1]:9000.")
    }
    defer { unsafe freeaddrinfo(found) }
    self.text = text
    family = unsafe info.ai_family
    bytes = unsafe Array(
      UnsafeRawBufferPointer(start: info.ai_addr, count: Int(info.ai_addrlen)))
  }
}

/// Answers each HTTP request with the newest counters, in the text format of Prometheus.
///
/// One thread, one request at a time; who says nothing for a second is hung up on. The counters are those of
/// the last report, so that no card is touched from here.
final class MetricsServer: Sendable {
  private let text = Mutex("")
  private let socket: Int32

  /// Listens at an address.
  ///
  /// - Throws: `DeviceError` when it is taken, or not one of this machine.
  init(at address: MetricsAddress) throws(DeviceError) {
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    let server = FileDescriptor(owning: Glibc.socket(address.family, kind, 0))
    var yes: Int32 = 1
    unsafe setsockopt(server.number, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
    let isBound = unsafe address.bytes.withUnsafeBytes {
      unsafe bind(
        server.number, $0.baseAddress?.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
        == 0
    }
    guard isBound, listen(server.number, 8) == 0 else {
      throw .lastError(
        "Serve metrics at \(address.text)",
        advice: "Is it an address of this machine, and the port free?")
    }
    // Open as long as the process.
    socket = dup(server.number)
    Thread.detachNewThread { [self] in
      while true { answer() }
    }
  }

  /// What the next requests get.
  func publish(_ ports: [(name: String, all: Statistics)]) {
    let metrics: [(String, String, (Statistics) -> UInt64)] = [
      ("receive_packets", "Frames received", { $0.receivedPackets }),
      ("receive_bytes", "Bytes received, without FCS", { $0.receivedBytes }),
      ("transmit_packets", "Frames sent", { $0.transmittedPackets }),
      ("transmit_bytes", "Bytes sent, without FCS", { $0.transmittedBytes }),
      ("receive_dropped", "Frames that found no descriptor", { $0.receiveDropped }),
      ("transmit_dropped", "Frames dropped because the ring was full", { $0.transmitDropped }),
      ("receive_errors", "Frames that arrived damaged", { $0.receiveErrors }),
    ]
    var lines = ""
    for (name, help, value) in metrics {
      lines += "# HELP ixy_\(name)_total \(help).\n# TYPE ixy_\(name)_total counter\n"
      for port in ports {
        let label = port.name.replacingOccurrences(of: "\\", with: "\\\\")
          .replacingOccurrences(of: "\"", with: "\\\"")
        lines += "ixy_\(name)_total{port=\"\(label)\"} \(value(port.all))\n"
      }
    }
    text.withLock { $0 = lines }
  }

  private func answer() {
    let client = FileDescriptor(owning: accept(socket, nil, nil))
    if client.number < 0 {
      usleep(100_000)
      return
    }
    var limit = timeval(tv_sec: 1, tv_usec: 0)
    let size = socklen_t(MemoryLayout<timeval>.size)
    unsafe setsockopt(client.number, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
    unsafe setsockopt(client.number, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
    // What is asked for makes no difference, but all of it is read: closing over unread bytes resets the connection.
    var request: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 4096)
    while request.count < 65_536, !request.suffix(4).elementsEqual("\r\n\r\n".utf8) {
      let count = unsafe recv(client.number, &part, part.count, 0)
      if count <= 0 { return }
      request += part.prefix(count)
    }
    let body = text.withLock { $0 }
    let answer =
      "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
      + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
    var rest = Array(answer.utf8)[...]
    while !rest.isEmpty {
      let sent = unsafe rest.withUnsafeBytes {
        unsafe send(client.number, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      if sent <= 0 { return }
      rest = rest.dropFirst(sent)
    }
  }
}
