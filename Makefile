# Commands for contributors. `make demo` and `make test` work on a fresh machine with Python 3.11 to 3.13 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests benchmarks tools
# Tests that need no training: a minute in all.
SMOKE := tests/data tests/files tests/heads tests/race tests/test_recipe.py tests/test_errors.py tests/test_strategies.py tests/test_evaluation.py
# Test processes. Each loads TensorFlow and takes 2 GB. More than the number of cores gain nothing.
WORKERS ?= 2
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo smoke test test-jax test-real check format bench docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## create .venv with all tools

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "installing into $(VENV), about a minute"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev,docs]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps keras-hub
	touch $@

demo: setup  ## train, test and save a classifier of built-in images
	$(BIN)/crossroads demo

smoke: setup  ## run the tests that take a minute
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(SMOKE)

test: setup  ## run the tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-jax: setup  ## run the core tests on Keras' JAX backend
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[jax]'
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m 'core and not real and not slow'

test-real: setup  ## run the wide sweeps, and the checks on the shared real data
	$(BIN)/python -m pytest -m 'real or slow'

check: setup  ## lint, format, types, import layers, words, links
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_prose.py

format: setup  ## format the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: setup  ## measure against the alternatives, side by side
	$(BIN)/python -m benchmarks

docs: setup  ## build the documentation into site/
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs site

clean:  ## remove what was built
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
