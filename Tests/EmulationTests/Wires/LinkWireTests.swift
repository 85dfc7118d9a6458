import Testing

@testable import Emulation

@Suite struct LinkWireTests {
  @Test func `frames go both ways in order`() {
    let (a, b) = LinkWire.pair()
    a.receiverChanged(isOn: true)
    b.receiverChanged(isOn: true)
    for i in 0..<10 {
      a.send(bytes: frame(i, size: 60 + i))
      b.send(bytes: frame(100 + i, size: 1514))
    }
    #expect(b.takeAll() == (0..<10).map { frame($0, size: 60 + $0) })
    #expect(a.takeAll() == (0..<10).map { frame(100 + $0, size: 1514) })
    #expect(a.counts.received == 10 && a.counts.sent == 10 && a.counts.dropped == 0)
  }

  @Test func `a card waits while its peer receives and the cable is full`() {
    let (a, b) = LinkWire.pair()
    b.receiverChanged(isOn: true)
    var sent = 0
    while a.canSend {
      a.send(bytes: frame(sent, size: 1514))
      sent += 1
    }
    #expect(a.counts.dropped == 0)
    #expect(b.take() == frame(0, size: 1514))
    while !a.canSend { #expect(b.take() != nil) }
    a.send(bytes: frame(sent, size: 1514))
    #expect(b.takeAll().last == frame(sent, size: 1514))
    #expect(b.counts.sent == UInt64(sent) + 1)
  }

  @Test func `a card that sends on a full cable loses that frame`() {
    let (a, b) = LinkWire.pair()
    b.receiverChanged(isOn: true)
    while a.canSend { a.send(bytes: frame(1, size: 1514)) }
    a.send(bytes: frame(2, size: 1514))
    #expect(a.counts.dropped == 1)
    #expect(b.takeAll().allSatisfy { $0 == frame(1, size: 1514) })
  }

  @Test func `nothing waits for a receiver that is off`() {
    let (a, b) = LinkWire.pair()
    for i in 0..<100_000 {
      #expect(a.canSend)
      a.send(bytes: frame(i, size: 60))
    }
    #expect(a.counts.dropped == 100_000)
    b.receiverChanged(isOn: true)
    #expect(b.take() == nil)
  }

  @Test func `frames on the cable are lost when the receiver goes off`() {
    let (a, b) = LinkWire.pair()
    b.receiverChanged(isOn: true)
    for i in 0..<3 { a.send(bytes: frame(i, size: 60)) }
    b.receiverChanged(isOn: false)
    b.receiverChanged(isOn: true)
    #expect(b.take() == nil)
    #expect(b.counts.dropped == 3)
  }

  @Test func `pulling the plug takes both links down`() {
    let (a, b) = LinkWire.pair()
    #expect(a.isConnected && b.isConnected)
    a.close()
    #expect(!a.isConnected && !b.isConnected)
  }

  @Test func `a short frame is padded on the way`() {
    let (a, b) = LinkWire.pair()
    b.receiverChanged(isOn: true)
    a.send(bytes: frame(5, size: 42))
    #expect(b.take() == padded(frame(5, size: 42)))
  }
}

@Suite struct LoopWireTests {
  @Test func `what a card sends comes back`() {
    let wire = LoopWire()
    wire.receiverChanged(isOn: true)
    for i in 0..<5 { wire.send(bytes: frame(i, size: 100)) }
    #expect(wire.takeAll() == (0..<5).map { frame($0, size: 100) })
    #expect(wire.counts.sent == 5 && wire.counts.received == 5)
  }

  @Test func `a card whose receiver is off hears nothing`() {
    let wire = LoopWire()
    wire.send(bytes: frame(1, size: 100))
    wire.receiverChanged(isOn: true)
    #expect(wire.take() == nil)
    #expect(wire.counts.dropped == 1)
  }

  @Test func `a card waits while the plug is full`() {
    let wire = LoopWire()
    wire.receiverChanged(isOn: true)
    while wire.canSend { wire.send(bytes: frame(1, size: 1514)) }
    #expect(wire.counts.dropped == 0)
    while !wire.canSend { #expect(wire.take() != nil) }
  }
}
