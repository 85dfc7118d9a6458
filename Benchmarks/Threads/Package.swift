// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "ixy-thread-benchmarks",
  dependencies: [.package(name: "ixy", path: "../..")],
  targets: [
    .executableTarget(name: "Threads", dependencies: [.product(name: "Ixy", package: "ixy")])
  ],
  swiftLanguageModes: [.v6]
)
