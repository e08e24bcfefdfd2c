# h5flight: what a newcomer, a developer and CI call. Each target installs what it needs and says so.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# libhdf5 needs a newer CMake than some distributions have: it comes from PyPI into .venv.
export CMAKE := $(CURDIR)/.venv/bin/cmake
PYTHON := $(CURDIR)/.venv/bin/python
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
DEBUG_BIN := $(TARGET)/debug/h5flight
RELEASE_BIN := $(TARGET)/release/h5flight

.PHONY: help setup build release demo docs test test-rust test-python soak lint format bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install what building and testing need
	@scripts/setup.sh

build: setup ## the debug binary, with places for the faults of tests
	cargo build --package h5flight --features failpoints

release: setup ## the release binary
	cargo build --release --package h5flight

demo: release ## write a recording, serve it, read slices of it, show the times and a picture
	$(PYTHON) examples/demo.py --bin $(RELEASE_BIN)

test: test-rust test-python ## all tests, with real PostgreSQL, Redis, pyarrow, h5py, pynwb

test-rust: build
	@scripts/test-rust.sh

test-python: build
	$(PYTHON) -m pytest --quiet clients/python/tests
	H5FLIGHT_BIN=$(DEBUG_BIN) $(PYTHON) -m pytest --quiet --numprocesses auto --maxprocesses 4 --dist loadfile tests/python

soak: build ## kills, reads after writes, flipped bits, followed appends and puts by the thousand; prints the counts
	H5FLIGHT_KILLS=$${H5FLIGHT_KILLS:-1000} H5FLIGHT_BIN=$(DEBUG_BIN) $(PYTHON) -m pytest --quiet -s tests/python/test_kills.py
	H5FLIGHT_PAIRS=$${H5FLIGHT_PAIRS:-10000} H5FLIGHT_BIN=$(DEBUG_BIN) $(PYTHON) -m pytest --quiet -s tests/python/test_read_after_write.py
	H5FLIGHT_FLIPS=$${H5FLIGHT_FLIPS:-10000} H5FLIGHT_BIN=$(DEBUG_BIN) $(PYTHON) -m pytest --quiet -s tests/python/test_verify.py -k flipped
	H5FLIGHT_FOLLOW_BLOCKS=$${H5FLIGHT_FOLLOW_BLOCKS:-600} H5FLIGHT_PUTS=$${H5FLIGHT_PUTS:-2000} H5FLIGHT_BIN=$(DEBUG_BIN) \
		$(PYTHON) -m pytest --quiet -s tests/python/test_follow.py tests/python/test_put_client.py tests/python/test_append_client.py

lint: setup ## formatting, clippy, ruff, mypy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	.venv/bin/ruff check clients/python tests/python examples bench
	.venv/bin/ruff format --check clients/python tests/python examples bench
	.venv/bin/mypy --config-file clients/python/pyproject.toml clients/python/src
	@scripts/check-layers.sh

format: setup ## rewrite everything in the project's format
	cargo fmt --all
	.venv/bin/ruff check --fix clients/python tests/python examples bench
	.venv/bin/ruff format clients/python tests/python examples bench

docs: setup ## the pages for users into ./site, strictly: a broken link or a missing docstring is an error
	PYTHONPATH=clients/python/src NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

bench: release ## measure against h5py, other Flight servers and Redis on the same files; writes docs/performance.md
	cargo bench --package h5flight-array
	$(PYTHON) bench/run.py --bin $(RELEASE_BIN)

clean: ## remove what was built, not what was served
	cargo clean
	rm -rf .venv demo-output site
