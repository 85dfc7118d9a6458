extension VirtioFeatures {
  /// Resets the device and agrees with it on what is used, and on nothing else.
  ///
  /// No offload is ever accepted: frames arrive with their checksums filled in, and never larger than they
  /// were on the wire.
  ///
  /// - Throws: When the device cannot do what the configuration asks for, or does not keep to the order.
  static func negotiate(
    _ pci: any PCIDevice, _ transport: any VirtioTransport, _ domain: DMADomain,
    _ configuration: DeviceConfiguration, _ options: VirtioDevice.Options
  ) throws(DeviceError) -> VirtioFeatures {
    try transport.reset(of: pci.name)
    transport.status.insert(.acknowledge)
    transport.status.insert(.driver)
    let offered = transport.offered
    var accepted = offered.intersection(wanted(configuration, options, transport))
    if !accepted.contains(.controlQueue) { accepted.subtract(commands) }
    if !accepted.contains(.multiqueue) || !VirtioSpreading.isPossible(transport) {
      accepted.remove(.rss)
    }
    if !accepted.contains(.rss) { accepted.remove(.hashReport) }
    // QEMU names the entry of a packed ring that it waits for, takes more than that, and then waits without
    // naming another: nothing would move any more. With flags alone it does not.
    if accepted.contains(.packedRing) { accepted.remove(.eventIndex) }
    do {
      try check(offered, accepted, pci, transport, domain, configuration)
    } catch {
      transport.status.insert(.failed)
      throw error
    }
    return accepted
  }

  /// Features that mean nothing without a control queue.
  private static let commands: Self = [
    .controlReceive, .controlVLAN, .controlMAC, .multiqueue, .rss,
  ]

  /// What this driver can use, for this configuration.
  private static func wanted(
    _ configuration: DeviceConfiguration, _ options: VirtioDevice.Options,
    _ transport: any VirtioTransport
  ) -> VirtioFeatures {
    var wanted: VirtioFeatures = [
      .mtu, .mac, .linkStatus, .speed, .controlQueue, .controlReceive, .controlMAC, .eventIndex,
    ]
    if transport.isModern {
      wanted.formUnion([.version1, .accessPlatform, .orderPlatform, .ringReset])
    } else {
      wanted.insert(.anyLayout)
    }
    if options.usesPackedRings { wanted.insert(.packedRing) }
    if options.filtersVLANs { wanted.insert(.controlVLAN) }
    if configuration.pairs > 1 { wanted.formUnion([.multiqueue, .rss, .hashReport]) }
    // Ordinary frames fit any buffer of ours.
    if configuration.maximumFrame > Mempool.defaultBufferSize { wanted.insert(.mergeableBuffers) }
    return wanted
  }

  /// Throws when the configuration needs what is not offered; tells the device what is accepted.
  private static func check(
    _ offered: VirtioFeatures, _ accepted: VirtioFeatures, _ pci: any PCIDevice,
    _ transport: any VirtioTransport, _ domain: DMADomain, _ configuration: DeviceConfiguration
  ) throws(DeviceError) {
    let what = "Open \(pci.name) as a virtio card"
    if transport.isModern && !offered.contains(.version1) {
      throw .misbehaved(device: pci.name, "it is modern, and does not offer version 1")
    }
    // Addresses that something has to translate are not the machine's own: a device that goes past the
    // IOMMU would write to anybody's memory.
    if !(domain.addressing is any PhysicalAddressing), !accepted.contains(.accessPlatform) {
      throw .refused(
        what, found: "its DMA goes past the IOMMU",
        advice: "In QEMU, give the device iommu_platform=on,disable-legacy=on.")
    }
    if configuration.pairs > 1 {
      let pairs =
        accepted.isSuperset(of: [.multiqueue, .controlQueue])
        ? Int(transport.configuration(VirtioNetConfiguration.maximumPairs)) : 1
      guard pairs >= configuration.pairs, pairs <= 0x8000,
        configuration.receiveQueues >= configuration.transmitQueues
      else {
        throw .refused(
          what, found: "it has \(pairs) queue pairs, and uses every receive queue of a pair",
          advice:
            "Ask for fewer queues, and no more to transmit than to receive. In QEMU: mq=on, a tap "
            + "with queues=N.")
      }
    }
    if accepted.contains(.mtu) {
      let mtu = Int(transport.configuration(VirtioNetConfiguration.mtu))
      guard configuration.mtu <= mtu else {
        throw .refused(
          what, found: "its MTU is at most \(mtu)", advice: "Ask for no more than that.")
      }
    }
    transport.accept(accepted)
    guard transport.isModern else { return }
    transport.status.insert(.featuresOK)
    guard transport.status.contains(.featuresOK) else {
      throw .refused(
        what, found: "it does not take the features \(String(accepted.rawValue, radix: 16))",
        advice: "It offers \(String(offered.rawValue, radix: 16)), and must take a part of that.")
    }
  }
}

/// IOVAs that are the machine's own addresses, which nothing translates.
protocol PhysicalAddressing: DMAAddressing {}

extension PhysicalAddresses: PhysicalAddressing {}
