// swift-tools-version: 6.2
import PackageDescription

/// Every use of an unsafe construct in the libraries is marked, and spans may carry lifetimes.
let library: [SwiftSetting] = [.strictMemorySafety(), .enableExperimentalFeature("Lifetimes")]

/// The examples, each of which runs on an emulated card.
let examples: [Target] = ["Hello", "Reflect", "Sleep", "OwnDriver"].map { name in
  .executableTarget(
    name: name, dependencies: ["Ixy", "Emulation"], path: "Examples/\(name)",
    swiftSettings: [.strictMemorySafety()])
}

let isFuzzing = Context.environment["IXY_FUZZ"] != nil

let commandDependencies: [Target.Dependency] = [
  "Ixy", "Emulation", "VFIOUser", "CIxy",
  .product(name: "ArgumentParser", package: "swift-argument-parser"),
]

/// The command `ixy`; where its parsers are fuzzed a library without its entry point.
let command: Target =
  isFuzzing
  ? .target(
    name: "IxyCommand", dependencies: commandDependencies, exclude: ["Ixy.swift"],
    swiftSettings: [.strictMemorySafety()])
  : .executableTarget(
    name: "IxyCommand", dependencies: commandDependencies, swiftSettings: [.strictMemorySafety()])

let package = Package(
  name: "ixy",
  products: [
    .library(name: "Ixy", targets: ["Ixy"]),
    .library(name: "Emulation", targets: ["Emulation"]),
    .library(name: "VFIOUser", targets: ["VFIOUser"]),
    .executable(name: "ixy", targets: ["IxyCommand"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    .target(name: "CIxy"),
    .target(name: "Ixy", dependencies: ["CIxy"], swiftSettings: library),
    .target(name: "Emulation", dependencies: ["Ixy", "CIxy"], swiftSettings: library),
    .target(
      name: "VFIOUser", dependencies: ["Ixy", "Emulation", "CIxy"], swiftSettings: library),
    command,
    .executableTarget(
      name: "Forward", dependencies: ["Ixy"], path: "Examples/Forward",
      swiftSettings: [.strictMemorySafety()]),
    .executableTarget(
      name: "nictest", dependencies: ["Ixy"], path: "VM/nictest",
      swiftSettings: [.strictMemorySafety()]),
    .executableTarget(
      name: "Pipeline", dependencies: ["Ixy"], path: "Examples/Pipeline",
      swiftSettings: [.strictMemorySafety()]),
    .target(name: "DriverModels", dependencies: ["Ixy", "Emulation"], path: "Tests/DriverModels"),
    .testTarget(name: "IxyTests", dependencies: ["Ixy", "Emulation", "CIxy", "DriverModels"]),
    .testTarget(name: "EmulationTests", dependencies: ["Ixy", "Emulation"]),
    .testTarget(name: "VFIOUserTests", dependencies: ["Ixy", "Emulation", "VFIOUser"]),
    .executableTarget(name: "Soak", dependencies: ["Ixy", "Emulation"], path: "Tests/Soak"),
    .testTarget(
      name: "CommandTests", dependencies: ["Ixy", "Emulation", "IxyCommand"],
      resources: [.copy("Resources")]),
  ] + examples,
  swiftLanguageModes: [.v6]
)

// What fuzzes is built with flags of its own (`make fuzz`): nobody else waits for it.
if isFuzzing {
  package.products.removeAll { $0.name == "ixy" }
  package.targets.removeAll { $0.name == "CommandTests" }
  package.targets += [
    .target(name: "CFuzz", path: "Tests/CFuzz"),
    .executableTarget(
      name: "Fuzz",
      dependencies: [
        "CFuzz", "CIxy", "Ixy", "Emulation", "VFIOUser", "DriverModels", "IxyCommand",
      ],
      path: "Tests/Fuzz", exclude: ["known-inputs.txt"]),
  ]
}
