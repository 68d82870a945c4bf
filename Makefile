# Everything on a fresh machine: `make demo`, `make test` and `make docs`. Needs Python 3.11 or newer, nothing else.

PYTHON ?= python3
VENV ?= .venv
# The tested torch. For a GPU build, install torch into $(VENV) yourself first, or say for example TORCH="torch>=2.6".
TORCH ?= $(shell grep -v '^\#' constraints.txt)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
SITE ?= build/docs

.PHONY: setup demo test lint test-long docs bench clean

setup: $(STAMP)

# torch is named in the same command as the project, so that it is chosen once; an installed torch that satisfies it stays.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/lambent demo --out runs/demo

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# One torch thread a worker: two processes of two threads each on two cores are slower than two of one.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-long: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long -s

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[docs]"
	touch $@

# A warning (a broken reference, an unreadable docstring) is an error.
docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs $(SITE)
	$(BIN)/python docs/check_links.py $(SITE)
	@echo "open $(SITE)/index.html"

bench: $(STAMP)
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/quantise.py

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
