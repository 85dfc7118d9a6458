import ArgumentParser

/// A value that a user types, and that says what the right form is when it is wrong.
///
/// ArgumentParser's own `ExpressibleByArgument` can say no more than that a value is invalid.
protocol TypedValue: SendableMetatype {
  /// Reads a value.
  ///
  /// - Throws: `ValidationError`, which is printed behind "The value 'x' is invalid for '--name <name>': ".
  init(typed text: String) throws
}

extension TypedValue {
  /// What the type's own way of reading has made of a text; where that is nothing, says what to give.
  init(_ value: Self?, orGive form: String) throws {
    guard let value else { throw ValidationError("give \(form)") }
    self = value
  }
}

// What comes behind an option is its value, whatever it looks like: that -5 is negative says more than that a
// value is missing.
extension Option {
  /// An option that must be given.
  init(name: NameSpecification = .long, help: ArgumentHelp) where Value: TypedValue {
    self.init(name: name, parsing: .unconditional, help: help) { try Value(typed: $0) }
  }

  /// An option that may be left out.
  init<T: TypedValue>(name: NameSpecification = .long, help: ArgumentHelp) where Value == T? {
    self.init(name: name, parsing: .unconditional, help: help) { try T(typed: $0) }
  }

  /// A whole number within limits, which may be left out.
  init(name: NameSpecification = .long, in limits: ClosedRange<Int>, help: ArgumentHelp)
  where Value == Int? {
    self.init(name: name, parsing: .unconditional, help: help) { try number($0, in: limits) }
  }

  /// A whole number within limits, with a default.
  init(
    wrappedValue: Int, name: NameSpecification = .long, in limits: ClosedRange<Int>,
    help: ArgumentHelp
  ) where Value == Int {
    var help = help
    help.abstract += " (default: \(wrappedValue))"
    self.init(wrappedValue: wrappedValue, name: name, parsing: .unconditional, help: help) {
      try number($0, in: limits)
    }
  }
}

extension Argument {
  /// An argument that must be given.
  init(help: ArgumentHelp) where Value: TypedValue {
    self.init(help: help) { try Value(typed: $0) }
  }

  /// An argument that may be left out.
  init<T: TypedValue>(help: ArgumentHelp) where Value == T? {
    self.init(help: help) { try T(typed: $0) }
  }
}

private func number(_ text: String, in limits: ClosedRange<Int>) throws -> Int {
  if let number = Int(text), limits.contains(number) { return number }
  let (least, most) = (limits.lowerBound, limits.upperBound)
  throw ValidationError(
    "give a whole number " + (most == .max ? "from \(least) on." : "from \(least) to \(most)."))
}
