# The menu. Meson and ninja do the work; docs/building.md says how.
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
FUZZ_SECONDS ?= 60
PYTHON := /usr/bin/python3
export BUILD FUZZ_SECONDS

.DEFAULT_GOAL := help
.PHONY: help deps build demo test check fuzz bench install uninstall

help: ## this list
	@echo 'TensorGuard. make <target>:'
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r t d; do printf '  %-10s %s\n' "$$t" "$$d"; done
	@echo 'Variables: BUILD (folder, default build), CC, PREFIX, DESTDIR, FUZZ_SECONDS, TENSORGUARD_DEPS, OPENSSL_PREFIX, ONNXRUNTIME_PREFIX.'

deps: ## install or build what TensorGuard stands on (safe to repeat)
	@tools/deps.sh build test

build: deps ## compile the programs into $(BUILD)/
	@tools/build.sh "$(BUILD)" --prefix "$(PREFIX)"

demo: build ## watch the whole way of a model: keys, build, publish, deploy, verify, predict
	@TENSORGUARD_BUILD="$(BUILD)" $(PYTHON) examples/perception-net/demo.py

test: deps ## every test; ends with "N passed, N failed"
	@tools/test.sh

check: deps ## what takes longer: format, clang-tidy, gcc -fanalyzer, valgrind, end-to-end under the sanitizers
	@tools/deps.sh build test check
	@tools/check.sh

fuzz: deps ## run each fuzz harness for FUZZ_SECONDS (clang)
	@tools/deps.sh build test fuzz
	@tools/fuzz.sh

bench: build ## measure, beside age and openssl: a table and $(BUILD)/bench.json
	@tools/deps.sh build test bench
	@TENSORGUARD_BUILD="$(BUILD)" $(PYTHON) tests/bench/run.py

install: build ## install into $(DESTDIR)$(PREFIX)
	@DESTDIR="$(DESTDIR)" tools/install.sh "$(BUILD)"

uninstall: ## remove what install put there
	@tools/install.sh --uninstall "$(BUILD)"
