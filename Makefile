# Everything starts here; `make` alone explains. Each target works from a fresh clone: `setup` runs first and is skipped when done.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-docker check format bench chaos lock clean

help:  ## explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo '  Options for the command behind a target: make chaos ARGS="lane-kill --json out/chaos.json"'

# Kafka's jars may be deleted on their own; then set-up has something to do although its inputs did not change.
ifeq ($(wildcard deploy/broker/jars/*.jar),)
.PHONY: $(READY)
endif
$(READY): pyproject.toml $(wildcard requirements/*.txt) $(wildcard deploy/broker/pom.xml) $(wildcard deploy/setup/*.py)
	@$(PYTHON) -m deploy.setup

setup: $(READY)  ## make .venv with everything that is needed, and fetch Apache Kafka

demo: $(READY)  ## read pictures through Kafka and two Ray clusters, evict a pod, count every result
	@$(BIN)/rayline demo $(ARGS)

test: $(READY)  ## all tests, on a real broker and real Ray clusters; some of them with ARGS="-k …"
	@$(if $(strip $(ARGS)),$(BIN)/pytest -m "not docker" $(ARGS),$(BIN)/python -m tests.run)

test-docker: $(READY)  ## the tests that need a Docker engine
	@$(BIN)/pytest -m docker $(ARGS)

check: $(READY)  ## formatting, lint, types, direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY)  ## put the code into its form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)  ## measure, beside the references shipped in bench/
	@$(BIN)/rayline bench $(ARGS)

chaos: $(READY)  ## break things under load and count what was lost or doubled
	@$(BIN)/rayline chaos $(ARGS)

lock:  ## resolve the requirements anew
	@$(PYTHON) -m deploy.setup lock

clean:  ## remove all that was made here (.venv, jars, caches, results)
	rm -rf .venv deploy/broker/jars out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
