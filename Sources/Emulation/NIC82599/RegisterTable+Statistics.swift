/// Counters (section 8).
extension RegisterTable {
  /// Counters, all cleared when they are read (section 8).
  ///
  /// DATASHEET-CONFLICT: sources disagree on the frame counters; reading clears them, as drivers expect.
  static let statistics: [RegisterBlock] = {
    func counter(_ name: String, _ offset: Int, count: Int = 1, stride: Int = 4) -> RegisterBlock {
      .init(name, offset, count: count, stride: stride, .clearOnRead)
    }
    return [
      counter("QPRC", 0x01030, count: 16, stride: 0x40),
      counter("QBRC_L", 0x01034, count: 16, stride: 0x40),
      counter("QBRC_H", 0x01038, count: 16, stride: 0x40),
      counter("QPRDC", 0x01430, count: 16, stride: 0x40),
      counter("FCOERPDC", 0x0241C), counter("FCOEPRC", 0x02428), counter("FCOEDWRC", 0x0242C),
      counter("B2OGPRC", 0x02F90),
      counter("PXONTXC", 0x03F00, count: 8), counter("PXOFFTXC", 0x03F20, count: 8),
      counter("LXONTXC", 0x03F60), counter("LXOFFTXC", 0x03F68),
      counter("MPC", 0x03FA0, count: 8), counter("RNBC", 0x03FC0, count: 8),
      counter("CRCERRS", 0x04000), counter("ILLERRC", 0x04004), counter("ERRBC", 0x04008),
      counter("MSPDC", 0x04010), counter("MLFC", 0x04034), counter("MRFC", 0x04038),
      counter("RLEC", 0x04040),
      counter("PRC", 0x0405C, count: 6),  // 64, 127, 255, 511, 1023, 1522
      counter("GPRC", 0x04074), counter("BPRC", 0x04078), counter("MPRC", 0x0407C),
      counter("GPTC", 0x04080),
      counter("GORC_L", 0x04088), counter("GORC_H", 0x0408C),
      counter("GOTC_L", 0x04090), counter("GOTC_H", 0x04094),
      counter("RUC", 0x040A4), counter("RFC", 0x040A8), counter("ROC", 0x040AC),
      counter("RJC", 0x040B0), counter("MNGPRC", 0x040B4), counter("MNGPDC", 0x040B8),
      counter("TOR_L", 0x040C0), counter("TOR_H", 0x040C4),
      counter("TPR", 0x040D0), counter("TPT", 0x040D4),
      counter("PTC", 0x040D8, count: 6),  // 64, 127, 255, 511, 1023, 1522
      counter("MPTC", 0x040F0), counter("BPTC", 0x040F4), counter("XEC", 0x04120),
      counter("PXONRXCNT", 0x04140, count: 8), counter("PXOFFRXCNT", 0x04160, count: 8),
      counter("BUPRC", 0x04180), counter("BMPRC", 0x04184), counter("BBPRC", 0x04188),
      counter("LXONRXCNT", 0x041A4), counter("LXOFFRXCNT", 0x041A8),
      counter("B2OSPC", 0x041C0), counter("O2BGPTC", 0x041C4),
      counter("FCCRC", 0x05118),
      counter("QPTC", 0x06030, count: 16, stride: 0x40),
      counter("QBTC_L", 0x08700, count: 16, stride: 8),
      counter("QBTC_H", 0x08704, count: 16, stride: 8),
      counter("SSVPC", 0x08780), counter("FCOEPTC", 0x08784), counter("FCOEDWTC", 0x08788),
      counter("O2BSPC", 0x087B0),
      counter("PXONRXC", 0x0CF00, count: 8), counter("PXOFFRXC", 0x0CF20, count: 8),
      counter("LXONRXC", 0x0CF60), counter("LXOFFRXC", 0x0CF68), counter("MNGPTC", 0x0CF90),
    ]
  }()
}
