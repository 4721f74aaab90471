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

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(VENV)/.demo ## a cluster on this machine at work on real weather data
	@$(BIN)/edgerm demo

.PHONY: test
test: $(VENV)/.dev nginx ## all tests; pass options in PYTEST_ARGS
	@$(BIN)/python -m pytest -q $(PYTEST_ARGS)

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
bench: $(VENV)/.dev ## measure, beside what it is compared with
	@for file in benchmarks/*.py; do echo "$$file"; $(BIN)/python "$$file"; done

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

# A test puts nginx between an agent and the master, as sites do.
.PHONY: nginx
nginx:
	@if [ ! -x /usr/sbin/nginx ] && ! command -v nginx >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Debian's package nginx-light, for one test"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null; \
	  else echo "a test needs nginx: install Debian's package nginx-light" >&2; exit 1; fi; fi
