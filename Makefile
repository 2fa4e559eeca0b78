# The menu. Meson and ninja do the work; see docs/building.md.
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
PYTHON = /usr/bin/python3

.DEFAULT_GOAL := help
.PHONY: help deps build

help: ## show this list
	@echo 'TensorGuard. make <target>:'
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r t d; do printf '%-12s %s\n' "$$t" "$$d"; done
	@echo 'Variables: BUILD (build folder), PREFIX, DESTDIR, CC, TENSORGUARD_DEPS, OPENSSL_PREFIX, ONNXRUNTIME_PREFIX.'

deps: ## install or build what TensorGuard stands on (safe to repeat)
	@tools/deps.sh

build: deps ## compile the programs into $(BUILD)/
	@tools/build.sh $(BUILD)
