# The two commands: `make run` (the demonstration) and `make test` (the fast, complete suite). Both set up all they need.
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

bin := .venv/bin
# A virtual environment and an editable install know where they lie: in a folder that was moved both are made anew.
here := $(shell pwd | cksum | cut -d ' ' -f 1)
ready := .venv/.ready-$(here)
installed := build/.installed-$(here)
proving := build/.proving-$(here)
sources := $(shell find src include plugins runner -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h') setup.py pyproject.toml
plugins := $(patsubst plugins/%/Makefile,plugins/%,$(wildcard plugins/*/Makefile))
.PHONY: help run test test-nodes test-crash test-sanitize test-faults models bench fuzz fuzz-coverage lint build proto plugins nodes examples sample-chain wheel clean $(plugins)

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: build  ## the demonstration: a real chain, mirrored
	@rm -rf build/demo && mkdir -p build/demo
	@$(bin)/python -m supervm_rt demo --store build/demo/store.db

test: build lint  ## the fast, complete suite
	$(bin)/python -m pytest -m 'not nodes' $(PYTEST)

test-nodes: build nodes examples  ## what needs real nodes and servers, and a thousand kills of consumers and of hosts
	@tools/prepare-machine $(PYTHON) nodes
	SUPERVM_REQUIRE_NODES=1 $(bin)/python -m pytest -m nodes $(PYTEST)

test-sanitize: build  ## the native code under sanitizers, and the ring on real threads; SANITIZERS='--frames 2000000 threads'
	$(bin)/python -m sanitizers $(SANITIZERS)

models: $(proving)  ## the ring and its wake-ups as models, searched by spin; each mutation of them must fail
	$(bin)/python -m models $(MODELS)

test-crash: build  ## every crash point of a run: kills, errors and power cuts at each call; CRASH=--every=9 for a part
	$(bin)/python -m tests.crash $(CRASH)

bench: $(proving) $(plugins)  ## speed, beside what people would otherwise use; BENCH=--quick to see that it runs
	$(bin)/python -m bench $(BENCH)

MINUTES ?= 10
fuzz: $(proving) $(plugins)  ## campaigns that try to break it, for MINUTES in all
	$(bin)/python -m fuzz $(MINUTES) $(FUZZ)

fuzz-coverage: $(proving)  ## the branches of the parser and the ring that the byte fuzzers reach
	$(bin)/python -m fuzz.coverage

test-faults: $(proving) $(plugins)  ## puts each deliberate fault into a copy of the project and shows that a test notices it
	$(bin)/python -m faults $(FAULTS)

lint: build
	$(bin)/ruff check --quiet .
	$(bin)/ruff format --check --quiet .
	$(bin)/mypy
	$(bin)/lint-imports --no-cache >build/lint-imports.log || { cat build/lint-imports.log; exit 1; }

build: $(installed) $(plugins)  ## the virtual environment, the extension and the plugins

$(ready): constraints.txt pyproject.toml tools/prepare-machine
	@tools/prepare-machine $(PYTHON)
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@echo "installing what supervm-rt needs into .venv"
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools cython wheel
	@touch $@

$(installed): $(ready) $(sources)
	@echo "building the extension"
	@mkdir -p build
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	@touch $@

# What bench, fuzz campaigns, sanitizers and models need beyond the tests.
$(proving): $(installed) tools/prepare-machine
	@tools/prepare-machine $(PYTHON) proving
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt atheris cffi iceoryx2 pyzmq
	@touch $@

$(plugins): $(installed)
	@$(MAKE) --no-print-directory --silent -C $@

examples: build tools/build-examples  ## plugins in C++, Rust and Go, into build/examples
	@tools/prepare-machine $(PYTHON) examples
	@tools/build-examples

nodes: build/nodes/bitcoind/bitcoind  ## a real bitcoind, unpacked into build/nodes

build/nodes/bitcoind/bitcoind: tools/fetch-bitcoind
	tools/fetch-bitcoind build/nodes/bitcoind

proto: build  ## the classes of the gRPC messages, made anew from proto/
	$(bin)/python tools/generate-messages

sample-chain: build nodes  ## makes the sample chain anew with a real bitcoind
	$(bin)/python tools/make-sample-chain build/nodes/bitcoind

wheel: build  ## the wheel, into dist/
	rm -rf build/lib*
	$(bin)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist .

clean:  ## removes all that was built
	rm -rf build dist .venv src/supervm_rt/bin src/supervm_rt/*.so src/supervm_rt/ir/*.so src/supervm_rt/store/feed/*.so src/supervm_rt/transports/remote/*.so plugins/*/*.so
