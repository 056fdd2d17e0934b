# Muster's few commands. `make test` is everything that CI runs.

CARGO ?= cargo
# The programs in one profile everywhere, so that nothing is compiled twice.
BIN := target/debug
PROFILE ?= dev
PARTS ?=

.PHONY: build test lint tests fuzz quickstart bench bench-api

build:
	$(CARGO) build -p muster -p muster-agent

test: lint tests fuzz

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# Built as one, so that every crate has the same features in each and is compiled once; the programs
# are there before the tests that start them.
tests:
	$(CARGO) build --workspace --all-targets --locked
	eval "$$(tests/real/parts.sh)" && $(CARGO) test --workspace --all-targets --locked --no-fail-fast

# Every parser that a client of the API reaches, for some seconds each:
# make fuzz FUZZ="selectors query" FUZZ_SECONDS=600
FUZZ ?=
fuzz:
	hub/apiserver/fuzz/run.sh $(FUZZ)

quickstart: build
	$(BIN)/muster quickstart

# Prints figures; the profile is what is built already unless asked: make bench PROFILE=release.
# Parts of it: make bench PARTS="rest requests works stores fleet".
bench:
	$(CARGO) build --profile $(PROFILE) --locked -p muster -p muster-agent -p muster-tests -p muster-e2e \
		--bin muster --bin muster-agent --bin idle-agents --bin bench
	eval "$$(tests/real/parts.sh)" && \
		$(CARGO) run --profile $(PROFILE) --locked -q -p muster-e2e --bin bench -- $(PARTS)

# The embedded API beside a real kube-apiserver, where MUSTER_KUBE_APISERVER and MUSTER_ETCD name one;
# with MUSTER_HUB=path/to/muster a hub's start and memory, too. A first build takes some minutes,
# the run about three. Phases of it: make bench-api PARTS="start patch list".
bench-api: PROFILE = release
bench-api:
	$(CARGO) build --profile $(PROFILE) --locked --workspace --bench api
	eval "$$(tests/real/parts.sh)" && $(CARGO) bench --profile $(PROFILE) --locked --workspace --bench api -- $(PARTS)
