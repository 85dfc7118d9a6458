/// A card that can be told more exactly which frames it receives, beside all or its own.
///
/// Broadcast frames are always received, and promiscuous mode overrides addresses. From the control
/// plane's thread, as everything of an `EthernetDevice`. igb, e1000e, vmxnet3 and virtio are such cards; `IxgbeDevice` has
/// `setMACAddress`, `setMulticastFilter` and `setAllMulticast` of its own, and no filter of VLANs.
public protocol FrameFilter: EthernetDevice {
  /// Changes the address that the card filters by, until it is reset.
  ///
  /// - Parameter address: A unicast address.
  /// - Throws: When it is none, or the card refuses it.
  func setMACAddress(_ address: MACAddress) throws(DeviceError)
  /// Receives frames for these multicast groups, and for no others that were set before.
  ///
  /// Cards that filter by a hash receive those of some other groups, too.
  ///
  /// - Parameter addresses: The groups; none at first.
  /// - Throws: When one of them is no multicast address, or there are more than the card takes.
  func setMulticast(_ addresses: [MACAddress]) throws(DeviceError)
  /// Receives tagged frames of these VLANs only; tags always stay in their frames.
  ///
  /// - Parameter ids: 0 to 4,095; nil receives all, as at first.
  /// - Throws: When one of them is out of range.
  func setVLANs(_ ids: [Int]?) throws(DeviceError)
}

extension FrameFilter {
  /// Refuses a multicast address, and zero.
  func requireUnicast(_ address: MACAddress) throws(DeviceError) {
    if address.isMulticast || address.bits == 0 {
      throw .refused(
        "Set the address of \(name)", found: "\(address) is no unicast address", advice: "")
    }
  }

  /// Refuses a unicast address among those of groups.
  func requireMulticast(_ addresses: [MACAddress]) throws(DeviceError) {
    for address in addresses where !address.isMulticast {
      throw .refused(
        "Receive a multicast group with \(name)", found: "\(address) is a unicast address",
        advice: "")
    }
  }

  /// One bit for each VLAN, 32 in a word.
  func vlanTable(_ ids: [Int]) throws(DeviceError) -> [UInt32] {
    var table = [UInt32](repeating: 0, count: 128)
    for id in ids {
      guard 0...4095 ~= id else {
        throw .refused(
          "Receive a VLAN with \(name)", found: "\(id) is no VLAN", advice: "Use 0 to 4095.")
      }
      table[id / 32] |= 1 << UInt32(id % 32)
    }
    return table
  }
}
