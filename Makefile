# What a developer does with this repository. `make` lists it; every target installs what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(patsubst %/pyproject.toml,%,$(sort $(wildcard plugins/*/pyproject.toml)))
PACKAGES := . $(PLUGINS)
PROJECTS := pyproject.toml $(PLUGINS:%=%/pyproject.toml)
PYTEST_ARGS ?=
# Many tests wait for processes, so more run at once than a small machine has cores.
WORKERS ?= 4

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(VENV)/.demo ## a cluster on this machine at work on real weather data
	@$(BIN)/edgerm demo

.PHONY: test
test: $(VENV)/.dev system ## all tests; pass options in PYTEST_ARGS
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Each distribution is checked in a run of its own, so that none leans on another by accident.
.PHONY: check
check: $(VENV)/.dev ## formatting, lint, types (strict), documents
	@echo "ruff check" && $(BIN)/ruff check --quiet .
	@echo "ruff format" && $(BIN)/ruff format --check --quiet .
	@for package in edgerm_core $(foreach p,$(PLUGINS),$(p)/edgerm_$(notdir $(p))); do \
	  echo "mypy $$package"; $(BIN)/mypy --no-error-summary "$$package"; done
	@echo "mypy tests" && $(BIN)/mypy --no-error-summary $(wildcard tests examples benchmarks)
	@echo "documents" && $(BIN)/python -m pytest -q tests/meta --ignore=tests/meta/test_packaging.py

.PHONY: bench
bench: $(VENV)/.dev system ## measure, beside what it is compared with
	@for file in benchmarks/*.py; do echo "$$file"; $(BIN)/python "$$file"; done

.PHONY: sim
sim: $(VENV)/.dev ## simulated clusters in virtual time; SEED=… for one seed, SECONDS=… for how long
	@$(BIN)/python -m edgerm_core.testing.simulator $(if $(SEED),--seed $(SEED)) $(if $(filter command,$(origin SECONDS)),--seconds $(SECONDS))

.PHONY: clean
clean: ## remove what make has made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis plugins/*/build
	find . -name '*.egg-info' -prune -exec rm -rf {} +
	find . -name __pycache__ -prune -exec rm -rf {} +

# --- what the targets above stand on ------------------------------------------------------------

# Some names on the path are shims that fail: a Python counts if it runs and is new enough.
$(BIN)/python:
	@for python in python3.11 python3 python3.12 python3.13 /usr/bin/python3; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found=$$python; break; fi; done; \
	if [ -z "$${found:-}" ]; then \
	  echo "edgerm needs Python 3.11 or newer; Debian 12 has it: apt-get install python3 python3-venv" >&2; exit 1; fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	  if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	    echo "$$found cannot make environments: install Debian's package python3-venv" >&2; exit 1; fi; \
	  echo "installing Debian's package python3-venv"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; fi; \
	echo "making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)

# $(1): file of pins, $(2): what it is for. The packages themselves are installed in place.
define install
	@echo "installing what $(2) needs ($(1))"
	@$(BIN)/python -m pip install -qq --requirement $(1)
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation $(foreach p,$(PACKAGES),--editable $(p))
	@touch $@
endef

$(VENV)/.demo: requirements/demo.txt requirements/core.txt requirements/build.txt $(PROJECTS) | $(BIN)/python
	$(call install,$<,the demonstration)

$(VENV)/.dev: requirements/dev.txt requirements/demo.txt requirements/core.txt requirements/build.txt $(PROJECTS) | $(BIN)/python
	$(call install,$<,development)
	@touch $(VENV)/.demo

# Programs of the system that tests run for real: Debian's package, its program, and what it is for.
define SYSTEM
nginx-light    nginx                      a proxy between an agent and the master
docker.io      dockerd                    the engine under the docker executor
podman         podman                     the other engine under the docker executor
netavark       /usr/lib/podman/netavark   networks for podman
busybox-static busybox                    what the images of both consist of
iproute2       ip                         networks for engines and daemons under test
nftables       nft                        links between daemons that are cut
libcoap3-bin   coap-client-notls          a CoAP client that others wrote
procps         sysctl                     settings of networks under test
endef
export SYSTEM

# Tests start what they need themselves, so no package may start a service: policy-rc.d says so. Where
# nothing can be installed, the tests that need it are left out, and say so; in CI that is a failure.
# With what the packages recommend: podman's networks, for one, are among that.
.PHONY: system
system:
	@export PATH="$$PATH:/usr/sbin:/sbin"; packages=; \
	while read -r package program purpose; do \
	  if ! command -v "$$program" >/dev/null; then \
	    packages="$$packages $$package"; echo "tests need Debian's package $$package: $$purpose"; fi; \
	done <<< "$$SYSTEM"; \
	if [ -z "$$packages" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing$$packages"; \
	  policy=/usr/sbin/policy-rc.d; \
	  if [ ! -e $$policy ]; then \
	    trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' > $$policy; chmod 755 $$policy; fi; \
	  apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$packages >/dev/null; \
	else \
	  echo "tests that need them are left out; to run them: apt-get install$$packages" >&2; \
	  [ -z "$${CI:-}" ]; fi
