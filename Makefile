# Two commands matter: `make demo` and `make test`. Each installs what it needs, and says what before.
# On a machine without root, they name the command that an administrator has to run.

SWIFT ?= swift
RELEASE := .build/release/ixy
STATIC := .build-static/release/ixy

.PHONY: demo build test check vm-test static bench profile format lint count-lines setup clean

demo: build
	$(RELEASE) demo

build:
	$(SWIFT) build -c release --product ixy

# Everything in process, the host's own TCP (as root), and guests at reduced counts.
test: setup lint static
	IXY=$(CURDIR)/$(STATIC) $(SWIFT) test
	Scripts/count-lines
	Scripts/check-layers
	Scripts/check-smallest
	Scripts/check-hotpath
	Scripts/check-instructions
	VM/run --ixy $(STATIC)

check: test

# All guest tests at full counts.
vm-test: static
	VM/run --full --ixy $(STATIC)

# Files that run in any guest; a build folder of its own, because all flags change.
static:
	for product in ixy nictest; do \
	  $(SWIFT) build -c release -Xswiftc -static-executable --scratch-path .build-static \
	    --product $$product || exit 1; \
	done

# Instructions and nanoseconds a packet, beside C (Documentation/performance.md).
bench: setup
	Benchmarks/run

# Where the instructions or the time of a packet go, by function, with symbols.
profile: setup
	Scripts/profile

setup:
	Scripts/setup-machine

lint:
	$(SWIFT) format lint -r --strict Package.swift Sources Tests Examples VM Benchmarks/Package.swift Benchmarks/Sources

format:
	$(SWIFT) format -i -r Package.swift Sources Tests Examples VM Benchmarks/Package.swift Benchmarks/Sources

count-lines:
	@Scripts/count-lines

clean:
	rm -rf .build .build-static .build-vm Benchmarks/.build
