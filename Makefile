# README.md shows `make demo` and `make test`; each installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
ARGS ?=
N ?= 200

.PHONY: demo test check bench fuzz chaos dist site models iam-verdicts docs record format clean help

help:
	@echo "make demo    install, and run the main commands on a local rack"
	@echo "make test    install, and run the tests (ARGS= for pytest)"
	@echo "make check   ruff, mypy, the import contract, the generated docs"
	@echo "make bench   measure what docs/performance.md claims"
	@echo "make fuzz    break some thousand SSH handshakes (ARGS='COUNT SEED')"
	@echo "make chaos   kill a keyroll at each of its AWS calls, and disturb N others at random; resume or abort each (N=200)"
	@echo "make dist    build the wheel and the sdist, and try the wheel in empty environments"
	@echo "make site    build the docs as a site in build/site, and check its links"
	@echo "make models  cut the slices of botocore's models again, after a change of src/rackctl/aws or of botocore"
	@echo "make iam-verdicts  have another IAM simulator judge the policies of racks policy again (needs npm)"
	@echo "make docs    write the generated docs"
	@echo "make record  record the sessions that README.md and docs/keyroll.md show"
	@echo "make clean   remove all that these commands write"

# A stamp for each set of packages, renewed if pyproject.toml or constraints.txt changes.
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

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.ssh.fuzz $(ARGS)

chaos: $(VENV)/.dev
	RACKCTL_CHAOS=all RACKCTL_MIXTURES="$(N) $$(date +%s)" $(BIN)/python -m pytest tests/roll tests/local -k 'chaos or mixtures or misreadings or stood_still or took_a_roll_over or one_action' $(ARGS)

site: $(VENV)/.site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

dist: $(VENV)/.dist
	.ci/dist $(BIN)/python

models: $(VENV)/.dev
	$(BIN)/python -m tools.cut_models

iam-verdicts: $(VENV)/.dev
	$(BIN)/python -m tools.iam_verdicts

record: $(VENV)/.dev
	$(BIN)/python docs/record.py

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
