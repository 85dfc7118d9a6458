/// What a card is opened with.
public struct DeviceConfiguration: Sendable {
  /// Receive queues, 1 to 64 or as many as the card has; frames are spread over all of them.
  public var receiveQueues = 1
  /// Transmit queues, 1 to 64 or as many as the card has.
  public var transmitQueues = 1
  /// Descriptors in each ring: a power of two from 64 to 4,096.
  public var ringEntries = 512
  /// The longest payload of a frame in bytes, 68 to 9,582 (e1000e 9,212, igb 9,216, vmxnet3 9,000).
  ///
  /// Frames of up to `mtu` + 18 bytes pass.
  public var mtu = 1500

  /// One queue each way for ordinary frames.
  public init() {}

  /// Whether a card of ours can do that.
  var isPossible: Bool {
    1...64 ~= receiveQueues && 1...64 ~= transmitQueues && 68...9582 ~= mtu
      && 64...4096 ~= ringEntries && ringEntries & (ringEntries - 1) == 0
  }

  /// The longest frame without FCS, in bytes: two addresses, a VLAN tag and the type around the payload.
  public var maximumFrame: Int { mtu + 18 }

  /// The size for the buffers of a mempool, in bytes, so that each holds a whole frame.
  public var bufferSize: Int { max(2048, maximumFrame.roundedUp(to: 1024)) }
}
