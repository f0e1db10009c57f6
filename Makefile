# Two commands do all: `make up` and `make test`. Everything made here lies in .venv, .local and the user's cache.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
STACK ?= dev
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete

.PHONY: help venv env up down test test-fast lint format preview rehearse mutation clean lock schema \
	bench-stack bench-preview bench-weights bench-plan

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(STAMP): requirements-dev.txt pyproject.toml
	@[ "$$(uname -s)" = Linux ] || { echo "this project runs on Linux (or WSL2), not on $$(uname -s)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing): install one, or name it with make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "'$(PYTHON)' has no venv module: install it (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Python environment: installing the locked packages into $(VENV) (a minute or two, once)" >&2
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --require-hashes -r requirements-dev.txt | \
	  awk -v live=$$([ -t 2 ] && echo 1 || echo 0) '/^Collecting|already satisfied/ {++n; if (live) {printf "\r  %d packages", n; fflush()}} \
	    /^Installing/ {printf "\r  %d packages; writing them\n", n; fflush()}' >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

venv: $(STAMP) ## the Python environment in .venv

env: $(STAMP) ## exports for the local stack: eval "$(make -s env)"
	@$(BIN)/python -m embedded.cli.env

up: $(STAMP) ## the whole stack on this machine; ends with a chat answer from both services
	@$(BIN)/demo up

down: $(STAMP) ## pulumi destroy, then stop the cluster; nothing of ours stays behind
	@$(BIN)/demo down

test: $(STAMP) lint test-fast ## everything that can be tested here, with a real up, preview, refresh and destroy
	@$(BIN)/python -m pytest tests -m embedded

test-fast: $(STAMP) ## the tests without servers, under a minute
	@$(BIN)/python -m pytest tests -m "not embedded" -q -n auto --dist worksteal

lint: $(STAMP) ## format, style and types
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

format: $(STAMP) ## let ruff format and fix
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

preview: $(STAMP) ## what would change: make preview STACK=dev
	@$(BIN)/demo preview -s $(STACK)

rehearse: $(STAMP) ## a whole up and destroy of an AWS stack without an account: make rehearse STACK=dev
	@$(BIN)/demo rehearse -s $(STACK) --all

mutation: $(STAMP) ## break the shipped stacks in many ways and count what is caught
	@$(BIN)/python -m bench.mutation

bench-stack: $(STAMP) ## the local stack against a person with a shell
	@$(BIN)/python -m bench.stack

bench-preview: $(STAMP) ## a preview of an AWS stack against one of an empty program, and with policies against without
	@$(BIN)/python -m bench.preview

bench-weights: $(STAMP) ## the seed job against the usual tools
	@$(BIN)/python -m bench.weights

bench-plan: $(STAMP) ## the plan beside public measurements, and its cost
	@$(BIN)/python -m bench.plan

lock: $(STAMP) ## resolve pyproject.toml again into the hashed locks
	@$(BIN)/python -m pip install --quiet uv
	@for extra in "" dev; do \
	  $(BIN)/uv pip compile pyproject.toml $${extra:+--extra $$extra} --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --quiet -o requirements$${extra:+-$$extra}.txt; done

schema: $(STAMP) ## write docs/stack.schema.json again, after a change of the settings
	@$(BIN)/python -m mistral_on_l4.config.schema

clean: ## stop the stack; remove .venv, .local and the built tools (not Go's own caches, which other projects share)
	@if [ -x $(BIN)/demo ]; then MISTRAL_ON_L4_HOME= $(BIN)/demo down --purge; \
	elif [ -e .local ]; then echo "there is a stack's home .local and no $(BIN)/demo to take it down: run make venv first" >&2; exit 1; fi
	@rm -rf $(VENV) .local .pytest_cache .mypy_cache .ruff_cache "$${XDG_CACHE_HOME:-$$HOME/.cache}/mistral-on-l4"
