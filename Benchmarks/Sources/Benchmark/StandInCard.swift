import Ixy
import StandIns

/// Hands out the addresses of a driver's memory, of which there is one block.
final class StandInMemory: DMAMapper {
  private var base: UnsafeMutableRawPointer?
  private var iova: UInt64 = 0

  var usableIOVAs: [ClosedRange<UInt64>] { [0...UInt64.max] }

  func map(file: Int32, offset: Int, base: UnsafeMutableRawPointer, iova: UInt64, size: Int) {
    // Every block lies at one constant + IOVA.
    if self.base == nil { (self.base, self.iova) = (base, iova) }
  }

  func unmap(iova: UInt64, size: Int) {}

  func pointer(to address: UInt64) -> UnsafeMutablePointer<UInt8> {
    guard let base else { fatalError("the driver has no memory") }
    return (base + Int(address) - Int(iova)).assumingMemoryBound(to: UInt8.self)
  }
}

/// A card whose doorbells are memory; its other registers are what `registers` makes of them.
final class StandInCard: PCIDevice {
  let name = "stand-in"
  let memory = StandInMemory()
  private let id: UInt32
  private let registers: any RegisterAccess
  private let size: Int
  private let mapped: [Range<Int>]
  let bytes: UnsafeMutablePointer<UInt8>

  /// - Parameters:
  ///   - id: Device and vendor, as in config space.
  ///   - size: The size of BAR 0.
  ///   - mapped: Its pages that are memory.
  ///   - registers: The rest.
  init(id: UInt32, size: Int, mapped: [Range<Int>], registers: any RegisterAccess) {
    self.id = id
    self.size = size
    self.mapped = mapped
    self.registers = registers
    bytes = standin_memory(size).assumingMemoryBound(to: UInt8.self)
  }

  func bar(_ index: Int) -> BAR { ForwardedBAR(registers, size: size, base: bytes, mapped: mapped) }

  func readConfig(_ offset: Int, width: Int) -> UInt32 { offset == 0 ? id : 0 }

  func writeConfig(_ value: UInt32, to offset: Int, width: Int) {}

  func attach(to domain: DMADomain) throws(DeviceError) { try domain.attach(memory) }

  /// A register that the driver wrote into memory.
  func register(_ offset: Int) -> UInt64 {
    UInt64(UnsafeRawPointer(bytes + offset).load(as: UInt32.self))
  }
}
