# make report   install everything and write a report to open
# make test     install everything and run the tests
# make check    format, lint, types
# make docs     the documentation site, docs/_build/html; its links and examples are checked
# make test-processors   the tests as other processors and numbers of threads would run them (SHORT=1: two settings)
# make bench    how long the main job takes here, then patch sweeps beside other tools
#
# PYTHON=python3.12 picks the interpreter, VENV=dir the environment,
# TESTS="tests/cli/test_cli.py" and MARKERS="not weights" what to test, PART=1/3 how much of each long table of cases,
# WORKERS=0 in one process that a debugger can enter, BENCH="--quick" how much to measure.

PYTHON  ?= python3
VENV    ?= .venv
OUT     ?= reports/color-noun
TESTS   ?=
MARKERS ?=
PART    ?=
WORKERS ?= 2
BENCH   ?=
PIPFLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIPFLAGS) --constraint tests/constraints.txt
PEERS := $(VENV)-peers
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " \
	+ sys.version.split()[0] + ": try make PYTHON=python3.12")

.PHONY: help report test test-processors check docs bench
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

report: $(VENV)/.installed
	$(BIN)/interp run color-noun --out $(OUT)
	@echo "Open $(OUT)/report.html in a browser."

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
		$(if $(MARKERS),-m "$(MARKERS)") $(if $(PART),--part $(PART)) $(TESTS)

test-processors: $(VENV)/.installed-dev
	PYTHON=$(BIN)/python WORKERS=$(WORKERS) tests/processors.sh $(if $(SHORT),--short) $(TESTS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict interp analyses

docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html --doctree-dir docs/_build/doctrees docs docs/_build/html
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder doctest --doctree-dir docs/_build/doctrees docs docs/_build/doctest
	@echo "Open docs/_build/html/index.html in a browser."

bench: $(PEERS)/.installed
	$(PEERS)/bin/python tests/benchmarks/main_job.py
	$(PEERS)/bin/python -m tests.benchmarks.bench $(BENCH)

$(BIN)/python:
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml tests/constraints.txt | $(BIN)/python
	@echo "Installing interp into $(VENV) (a few minutes, once)."
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml tests/constraints.txt | $(BIN)/python
	@echo "Installing interp and its development tools into $(VENV) (a few minutes, once)."
	$(PIP) --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(PEERS)/.installed: pyproject.toml tests/constraints.txt tests/benchmarks/peers.txt
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	@echo "Installing interp and the tools it is measured against into $(PEERS) (a few minutes, once)."
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint tests/constraints.txt \
		--requirement tests/benchmarks/peers.txt --editable .
	@touch $@
