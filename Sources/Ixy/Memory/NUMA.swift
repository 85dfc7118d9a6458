/// A device that is nearer to some memory and processors than to others.
public protocol NUMADevice: PCIDevice {
  /// The NUMA node that it is attached to; nil where there is only one.
  var numaNode: Int? { get }
}

extension SysfsDevice: NUMADevice {
  /// The node by sysfs, which says -1 where there is only one.
  public var numaNode: Int? {
    firstLine(of: directory + "/numa_node").flatMap { Int($0) }.flatMap { $0 < 0 ? nil : $0 }
  }
}
