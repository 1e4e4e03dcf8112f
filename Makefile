# Hanse's commands. `make help` lists them.
#
# One virtual environment serves all: `make demo` puts the runtime into it, and everything else adds
# the tools. It is brought up to date when pyproject.toml or constraints.txt change.
#
#   PYTHON     the interpreter that .venv is made with (3.11 or later)
#   PIP_FLAGS  more options for pip, an index with CPU builds of PyTorch for example
#   JOBS       how many tests run side by side

PYTHON ?= python3
PIP_FLAGS ?=
JOBS ?= 2
DEMO ?= run examples/smartwatch.toml --baselines --seeds 5

VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
RUNTIME := $(VENV)/.runtime
TOOLS := $(VENV)/.tools
PIP_INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow lint format types layers docs wheel bench check clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## train on the bundled smartwatch data, beside the baselines
	$(BIN)/hanse $(DEMO)

test: $(TOOLS) ## run the fast tests, with coverage
	$(BIN)/pytest -n $(JOBS) --cov --cov-report=term:skip-covered

# pytest ends with 5 where no test is marked slow.
slow: $(TOOLS) ## run the slow tests
	$(BIN)/pytest -n $(JOBS) -m slow || [ $$? -eq 5 ]

lint: $(TOOLS) ## look for mistakes, and for code that is not formatted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TOOLS) ## repair what lint can repair by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(TOOLS) ## check the types
	$(BIN)/mypy

layers: $(TOOLS) ## check which module imports which
	$(BIN)/lint-imports

docs: $(TOOLS) ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(TOOLS) ## build the wheel into dist/, by way of the source distribution
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python scripts/check_wheel.py dist/*.whl

# The peers' environments lie in .venv-peers; the page says what is measured, and how to do less.
bench: $(TOOLS) ## time Hanse beside other libraries, into docs/performance.md (hours)
	$(BIN)/python -m benchmarks.simulation.environments --pip-flags='$(PIP_FLAGS)'
	$(BIN)/python -m benchmarks.simulation --write docs/performance.md
	$(BIN)/python -m benchmarks.simulation.scaling --write docs/performance.md

check: lint types layers docs test slow wheel ## everything

clean: ## remove .venv and all that is built
	rm -rf $(VENV) build dist site htmlcov .coverage .coverage.* \
	  .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Hanse needs Python 3.11 or later; name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): $(PINS) | $(BIN)/python
	@echo 'Installing Hanse into $(VENV) (PyTorch is large: this can take minutes) ...'
	@$(PIP_INSTALL) -e .
	@touch $@

$(TOOLS): $(PINS) | $(BIN)/python
	@echo 'Installing Hanse and its tools into $(VENV) (PyTorch is large: this can take minutes) ...'
	@$(PIP_INSTALL) -e '.[dev,docs]'
	@touch $(RUNTIME) $@
