// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "ixy-benchmarks",
  dependencies: [.package(name: "ixy", path: "..")],
  targets: [
    .target(name: "StandIns"),
    .executableTarget(
      name: "Benchmark",
      dependencies: [
        .product(name: "Ixy", package: "ixy"), .product(name: "Emulation", package: "ixy"),
        "StandIns",
      ]),
  ],
  swiftLanguageModes: [.v6]
)
