# Thin targets: each one calls scripts, which can also be called by hand.

PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: demo test test-vm attacks kills bench fuzz install clean

demo:
	@tests/setup --for demo
	@tests/demo

test:
	@tests/setup --for test
	@tests/run --tier machine

test-vm:
	@tests/setup --for test
	@tests/vm/run

attacks:
	@tests/setup --for test
	@RINGFENCE_ATTACK_ROUNDS=$${RINGFENCE_ATTACK_ROUNDS:-1000} tests/run --tier machine --suite attacks --suite python:files

kills:
	@tests/setup --for test
	@RINGFENCE_KILL_ROUNDS=$${RINGFENCE_KILL_ROUNDS:-100} tests/run --tier machine --as root --suite rust:outside \
		--suite rust:attachments --suite python:networks

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
