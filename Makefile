# `make demo` and `make test` are the two commands of README.md; each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
ARGS ?=

.PHONY: demo test check bench chaos models docs format clean help

help:
	@echo "make demo    set up, and run the main commands on a rack of this machine"
	@echo "make test    set up, and pass the tests (ARGS= for pytest)"
	@echo "make check   ruff, mypy, the import contract, the generated docs"
	@echo "make bench   measure what docs/performance.md claims"
	@echo "make chaos   kill a keyroll at each of its AWS calls, and resume or abort it"
	@echo "make models  cut the slices of botocore's models again: after a change in src/rackctl/aws, or of botocore"
	@echo "make docs    write the generated docs"
	@echo "make clean   remove what the others made"

# A stamp for each set of packages: made again when what it was made from changes.
$(VENV)/.%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rackctl needs Python 3.11 or newer: make PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing rackctl[$*] into $(VENV) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@

demo: $(VENV)/.local
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check

bench: $(VENV)/.dev $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.dev
	RACKCTL_CHAOS=all $(BIN)/python -m pytest tests/local -k chaos $(ARGS)

models: $(VENV)/.dev
	$(BIN)/python -m tools.cut_models

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
