# Two commands matter: `make demo`, which needs Swift alone, and `make test`, which installs what it needs and says what
# before; without root it names the command that an administrator has to run.

SWIFT ?= swift
RELEASE := .build/release/ixy
# Files that run in any guest; a build folder of its own, because all flags change.
BUILD_STATIC := $(SWIFT) build -c release -Xswiftc -static-executable --scratch-path .build-static
STATIC := .build-static/release/ixy

# Where `make install` puts the command, its manual page and its completions.
PREFIX ?= /usr/local
SHARE := $(DESTDIR)$(PREFIX)/share

.PHONY: demo build install docs test debug-tests checks check vm-test static bench bench-threads thread-test profile lint count-lines setup \
  format clean fuzz fuzz-seeds sanitize soak

demo: build
	$(RELEASE) demo

build:
	$(SWIFT) build -c release --product ixy

# Of root nothing is asked but to copy: its PATH may have no compiler.
install:
	test -x $(RELEASE) || $(MAKE) build
	install -D $(RELEASE) $(DESTDIR)$(PREFIX)/bin/ixy
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
	  $(SHARE)/fish/vendor_completions.d
	Scripts/make-manual $(RELEASE) > $(SHARE)/man/man1/ixy.1
	$(RELEASE) --generate-completion-script bash > $(SHARE)/bash-completion/completions/ixy
	$(RELEASE) --generate-completion-script zsh > $(SHARE)/zsh/site-functions/_ixy
	$(RELEASE) --generate-completion-script fish > $(SHARE)/fish/vendor_completions.d/ixy.fish

# The library's documentation, as pages for a web server, in .build/documentation.
docs:
	$(SWIFT) build --target Ixy
	mkdir -p .build/symbols
	$(SWIFT) symbolgraph-extract -module-name Ixy -minimum-access-level public -output-dir .build/symbols \
	  -I .build/debug/Modules -I Sources/CIxy/include -target $(shell uname -m)-unknown-linux-gnu
	docc convert Sources/Ixy/Ixy.docc --additional-symbol-graph-dir .build/symbols \
	  --fallback-display-name Ixy --fallback-bundle-identifier ixy --output-path .build/documentation

# Everything in process, the host's own TCP (as root), and guests at reduced counts.
test: setup lint
	$(MAKE) --jobs=2 --output-sync=line static debug-tests
	IXY=$(CURDIR)/$(STATIC) $(SWIFT) test
	$(MAKE) --jobs=2 --output-sync=line fuzz-seeds checks
	VM/run -j 2 --ixy $(STATIC)

debug-tests:
	$(SWIFT) build --build-tests

# What takes one core beside the compiler's.
checks:
	Scripts/check-commands
	$(MAKE) soak SOAK_SECONDS=20
	Scripts/count-lines
	Scripts/check-layers
	Scripts/check-lessons
	Scripts/check-smallest
	Scripts/check-hotpath
	Scripts/check-instructions

check: test

# All guest tests at full counts.
vm-test: static
	VM/run --full --ixy $(STATIC)

# What threads cost, in instructions and time, and 100 million packets from thread to thread.
bench-threads:
	Benchmarks/Threads/measure

# What is no race although the thread sanitizer says so; the file tells why of each.
THREADS := TSAN_OPTIONS=suppressions=$(CURDIR)/Tests/thread-sanitizer.txt

# All that threads share, under the thread sanitizer; a build folder of its own, because all flags change.
thread-test:
	$(THREADS) $(SWIFT) test --sanitize=thread --scratch-path .build-thread \
	  --filter 'PacketRing|SharedMempool|WorkerThread|QueueThread'

static:
	$(BUILD_STATIC) --product ixy
	$(BUILD_STATIC) --product nictest

# Instructions and nanoseconds a packet, beside C (Documentation/performance.md).
bench: setup
	Benchmarks/run

# Where the instructions or the time of a packet go, by function, with symbols.
profile: setup
	Scripts/profile

# Hostile cards, peers, files and texts under the address sanitizer: from seeds, for two minutes in all; then
# every input that ever found something. What fails prints the command that repeats it.
FUZZ := IXY_FUZZ=1 $(SWIFT) build -c release -Xswiftc -enable-testing --sanitize=address --product Fuzz
FUZZ_SECONDS ?= 120
fuzz-seeds:
	$(FUZZ) --scratch-path .build-fuzz
	ASAN_OPTIONS=detect_leaks=0 .build-fuzz/release/Fuzz all --seconds $(FUZZ_SECONDS)
	ASAN_OPTIONS=detect_leaks=0 .build-fuzz/release/Fuzz known Tests/Fuzz/known-inputs.txt

# The same guided by coverage, with libFuzzer, for an hour in all; what it keeps is in .build-guided/corpus. Not with
# the linker gold, which ends with an internal error.
MINUTES ?= 60
fuzz:
	$(FUZZ) --scratch-path .build-guided -Xswiftc -DFUZZING -Xswiftc -sanitize=fuzzer -Xswiftc -use-ld=lld
	Scripts/fuzz .build-guided $(MINUTES)

# The whole unit suite under the address and under the thread sanitizer, which cannot be had in one build. What measures
# processor time is left out. The thread sanitizer leaves no room for the 16 TiB of addresses that a domain with physical
# addresses reserves; it is given optimized code, because it takes hours otherwise.
TIMED := an idle forwarder uses less than 2 percent
sanitize: setup
	ASAN_OPTIONS=detect_leaks=0 $(SWIFT) test --sanitize=address --scratch-path .build-address --skip '$(TIMED)'
	$(THREADS) $(SWIFT) test -c release -Xswiftc -enable-testing --sanitize=thread --scratch-path .build-thread \
	  --skip '$(TIMED)|a domain gives its address space back|without huge pages physical addresses'
	@echo "ok the unit suite under both sanitizers"

# Forwards between two emulated cards with link flaps, resets and pauses, and accounts for everything at the end.
SOAK_SECONDS ?= 3600
soak:
	$(BUILD_STATIC) --product Soak
	.build-static/release/Soak --seconds $(SOAK_SECONDS)

setup:
	Scripts/setup-machine

lint:
	$(SWIFT) format lint -r --strict Package.swift Sources Tests Examples VM Benchmarks/Package.swift Benchmarks/Sources \
	  Benchmarks/Threads/Sources

format:
	$(SWIFT) format -i -r Package.swift Sources Tests Examples VM Benchmarks/Package.swift Benchmarks/Sources \
	  Benchmarks/Threads/Sources

count-lines:
	@Scripts/count-lines

clean:
	rm -rf .build $(filter-out .build-vm,$(wildcard .build-*)) Benchmarks/.build Benchmarks/Threads/.build
