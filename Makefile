# `make demo` and `make test` set up everything they need in $(VENV).
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test check format clean

## demo: set up, then draw, edit and answer with the checkpoint that ships in the package
demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --output demo

## test: set up and run the tests, in WORKERS processes of one thread each: the tensors are too small for more
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

## check: set up and run the linter, the formatter's check and the type checker
check: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests examples benchmarks docs
	$(BIN)/ruff format --check src tests examples benchmarks docs
	$(BIN)/mypy

## format: format the code
format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix src tests examples benchmarks docs
	$(BIN)/ruff format src tests examples benchmarks docs

## clean: remove what the targets above made
clean:
	rm -rf $(VENV) demo .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; about a minute, most of it PyTorch) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable ".[dev]"
	@# gradio asks for Pillow 12 and works with 13; the recordings were made with 13, which resizes differently
	$(PIP) install --no-deps pillow==13.0.0
	@touch $@
