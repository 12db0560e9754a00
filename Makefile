# Every target does its own set-up on a machine that has Python 3.11 and git.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DATA ?= .onepass
LOCK := build/lock/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11

.PHONY: up test check fix bench docs clean lock
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.ready: requirements.lock pyproject.toml
	@echo "setting up $(VENV) from requirements.lock (about a minute, once)"
	@$(PYTHON) -c 'import sys; sys.exit("OnePass needs Python 3.11 or newer, this is %s: make PYTHON=/path/to/python3.11" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

build/stubs/.ready: $(VENV)/.ready tools/stubs.py
	@echo "making typed stubs of the messages of Envoy and etcd"
	@rm -rf .mypy_cache
	@$(BIN)/python tools/stubs.py build/stubs
	@rm -rf .mypy_cache  # mypy remembers which modules had no stubs
	@touch $@

up: $(VENV)/.ready ## run the gateway with two sandbox member clusters
	@$(BIN)/onepass up --sandbox 2 --data-dir $(DATA)

test: $(VENV)/.ready ## run every test
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile || { test $$? -eq 1 && \
		echo "once more, alone: what failed. What passes only now is a test to be mended." && \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none --maxfail 5; }

check: $(VENV)/.ready build/stubs/.ready ## ruff, mypy, import-linter, spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(BIN)/codespell

fix: $(VENV)/.ready ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.ready ## measure against the budgets, as ratios in one run
	@$(BIN)/python -m bench

docs: $(VENV)/.ready ## check that every link in the documentation leads somewhere
	@$(BIN)/python tools/links.py

lock: ## resolve the dependencies anew into requirements.lock, and what the image needs of them
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv
	@$(LOCK) --extra test --extra check --output-file requirements.lock pyproject.toml tools/build-requirements.in
	@$(LOCK) --constraint requirements.lock --output-file deploy/requirements.lock pyproject.toml
	@$(LOCK) --constraint requirements.lock --output-file deploy/build-requirements.lock tools/build-requirements.in

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
