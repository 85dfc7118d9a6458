import Ixy

/// What reads and writes of registers set off.
extension NIC82599 {
  // MARK: Reads

  /// The value of a register that stores nothing.
  func readCommand(_ effect: RegisterEffect, _ index: Int) -> UInt32 {
    switch effect {
    case .eepromRead: return eeprom.readValue
    case .eepromWrite: return eeprom.writeValue
    case .twoWire: return readTwoWire()
    case .swsm: return semaphores.readSWSM()
    case .gssr: return semaphores.readSync()
    case .hostInterface: return hostInterface.control
    default: return interruptUnit.read(effect, index: index)
    }
  }

  /// The value of a register that shows the state of something.
  func readLive(_ effect: RegisterEffect, stored: UInt32) -> UInt32 {
    switch effect {
    case .deviceStatus:
      link.update()
      // Link up (7); PCIe master enabled (19), which drops as soon as CTRL.2 asks for it.
      let masterDisabled = registers.has(Self.masterDisable, at: 0x00000)
      return (link.isUp ? 1 << 7 : 0) | (masterDisabled ? 0 : 1 << 19)
    case .links:
      return link.readLinks()
    case .freeRunningTimer:
      return UInt32(truncatingIfNeeded: interruptUnit.now() / 1000)
    default:
      return stored
    }
  }

  // MARK: Writes

  /// A write to a register that stores nothing.
  func writeCommand(_ effect: RegisterEffect, _ index: Int, _ value: UInt32) {
    switch effect {
    case .eepromRead: eeprom.startRead(value)
    case .eepromWrite: eeprom.startWrite(value)
    case .twoWire: writeTwoWire(value)
    case .swsm: semaphores.writeSWSM(value)
    case .gssr: semaphores.writeSync(value)
    case .hostInterface: hostInterface.write(value, registers: registers, eeprom: eeprom)
    case .none: break
    default: interruptUnit.write(effect, index: index, value)
    }
  }

  /// A register holds a new value: `raw` is what was written, `new` what of it stays.
  func wasWritten(
    _ effect: RegisterEffect, _ index: Int, home: Int, old: UInt32, new: UInt32, raw: UInt32
  ) {
    switch effect {
    case .none: break
    case .deviceControl:
      // RST, or LNK_RST, which has to do all the same (initialization reference, section 1).
      if raw & (1 << 26 | 1 << 3) != 0 { resetRegisters() }
    case .softwarePins:
      // As an input (direction in bit 10), SDP2 says that the module's cage is full.
      if new & 1 << 10 == 0 { store(new | 1 << 2, at: home, twin: home) }
    case .eepromControl: store(eeprom.drivePins(new), at: home, twin: home)
    case .mdioCommand: link.runMDIO(raw)
    case .autoc: link.update()
    case .flowDirectorControl:
      // INIT_DONE (3) follows as soon as memory was allocated to it (1:0).
      store(new & 3 != 0 ? new | 1 << 3 : new & ~(1 << 3), at: home, twin: home)
    case .receiveConfiguration: receiver.configurationChanged()
    case .transmitConfiguration: transmitter.configurationChanged()
    case .bothConfigurations:
      receiver.configurationChanged()
      transmitter.configurationChanged()
    case .receiveControl:
      receiver.configurationChanged()
      receiverChanged()
    case .receiveHead, .receiveTail, .receiveQueueControl, .receiveRing:
      receiveQueueWritten(effect, index, old: old, new: new)
    case .transmitHead, .transmitTail, .transmitQueueControl, .transmitRing:
      transmitQueueWritten(effect, index, old: old, new: new)
    default: interruptUnit.write(effect, index: index, raw)
    }
  }

  private func receiveQueueWritten(
    _ effect: RegisterEffect, _ queue: Int, old: UInt32, new: UInt32
  ) {
    switch effect {
    case .receiveHead: receiver.setHead(queue: queue, new)
    case .receiveTail: receiver.setTail(queue: queue, new)
    case .receiveQueueControl:
      receiver.configurationChanged()
      guard (old ^ new) & EngineBit.queueEnable != 0 else { return }
      shared.receiveQueue(queue, isOn: new & EngineBit.queueEnable != 0)
      guard new & EngineBit.queueEnable != 0 else { return receiver.disable(queue: queue) }
      receiver.enable(queue: queue)
      receiver.setTail(queue: queue, tail(EngineRegister.receiveBank(queue)))
    default: break  // base and length count when the queue is enabled
    }
  }

  private func tail(_ bank: Int) -> UInt32 { registers[bank + EngineRegister.Bank.tail] }

  private func transmitQueueWritten(
    _ effect: RegisterEffect, _ queue: Int, old: UInt32, new: UInt32
  ) {
    switch effect {
    case .transmitHead: transmitter.setHead(queue: queue, new)
    case .transmitTail: transmitter.setTail(queue: queue, new)
    case .transmitQueueControl:
      transmitter.configurationChanged()
      guard (old ^ new) & EngineBit.queueEnable != 0 else { return }
      shared.transmitQueue(queue, isOn: new & EngineBit.queueEnable != 0)
      guard new & EngineBit.queueEnable != 0 else { return transmitter.disable(queue: queue) }
      transmitter.enable(queue: queue)
      transmitter.setTail(queue: queue, tail(EngineRegister.transmitBank(queue)))
    default: break
    }
  }

  // MARK: Two-wire interface

  /// I2CCTL: CLK_IN (0), CLK_OUT (1), DATA_IN (2), DATA_OUT (3).
  private func readTwoWire() -> UInt32 {
    let clock = twoWire & 1 << 1 != 0
    let data = twoWire & 1 << 3 != 0 && !(module?.pullsData ?? false)
    return twoWire & 0xA | (clock ? 1 : 0) | (data ? 1 << 2 : 0)
  }

  private func writeTwoWire(_ value: UInt32) {
    twoWire = value & 0xA
    module?.drive(clock: value & 1 << 1 != 0, data: value & 1 << 3 != 0)
  }
}
