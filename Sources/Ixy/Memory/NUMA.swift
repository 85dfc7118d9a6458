import CIxy
import Glibc

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

extension DMADomain {
  /// Puts all memory that is made from now on, for pools and rings, on a NUMA node.
  ///
  /// `openDevice` prefers the node of the first card. Needs Linux 5.14.
  ///
  /// - Parameters:
  ///   - node: Its number.
  ///   - strictly: Fails when the node has not enough memory; otherwise the rest comes from other nodes.
  /// - Throws: `DeviceError.refused` when there is no such node.
  public func place(onNode node: Int, strictly: Bool = false) throws(DeviceError) {
    guard 0..<1024 ~= node, Cores.ofNode(node) != nil else {
      let nodes = firstLine(of: "/sys/devices/system/node/online") ?? "none"
      throw .refused(
        "Use memory of NUMA node \(node)", found: "this machine has \(nodes)",
        advice: "Choose one of these, or leave --numa out.")
    }
    lock.withLock { _ in
      placeFile = { file, size throws(DeviceError) in
        try placePages(of: file, size, node, strictly)
      }
    }
  }

  /// Lets the kernel choose again where memory is.
  public func placeAnywhere() { lock.withLock { _ in placeFile = { _, _ in } } }
}

/// Makes all pages of a file, on one node.
///
/// They stay there when the file is mapped elsewhere.
private func placePages(
  of file: borrowing FileDescriptor, _ size: Int, _ node: Int, _ strictly: Bool
) throws(DeviceError) {
  let base = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0)
  guard let base = unsafe base, unsafe base != MAP_FAILED else {
    throw .lastError("Map \(size) bytes of DMA memory", advice: "Free memory or huge pages.")
  }
  defer { unsafe munmap(base, size) }
  var nodes = [UInt64](repeating: 0, count: 16)
  nodes[node / 64] = 1 << UInt64(node % 64)
  let mode = Int32(strictly ? IXY_MPOL_BIND : IXY_MPOL_PREFERRED)
  if unsafe ixy_mbind(base, UInt(size), mode, &nodes, 1024) != 0 {
    throw .lastError("Bind memory to NUMA node \(node)", advice: "Try --numa off.")
  }
  if unsafe madvise(base, size, IXY_POPULATE_WRITE) != 0, errno != EINVAL {
    throw .lastError(
      "Take \(size >> 10) KiB on NUMA node \(node)",
      advice: "Free memory there. For huge pages: echo 64 | sudo tee "
        + "/sys/devices/system/node/node\(node)/hugepages/hugepages-2048kB/nr_hugepages")
  }
}
