# Thin targets: each one calls scripts, which can also be called by hand.

PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: demo test test-vm bench fuzz install clean

demo:
	@tests/setup --for demo
	@tests/demo

test:
	@tests/setup --for test
	@tests/run --tier machine

test-vm:
	@tests/setup --for test
	@tests/vm/run

bench:
	@tests/setup --for bench
	@tests/bench/run

fuzz:
	@tests/setup --for demo
	@tests/fuzz/run

install:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' capi/install.sh

clean:
	@rm -rf target
