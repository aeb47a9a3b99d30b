# `make demo` and `make test` set up everything they need in $(VENV).
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The core: what computes, without servers, training runs and evaluation
CORE := tests/conversion tests/generation tests/layout tests/modeling tests/parity tests/peers tests/pipelines tests/processing \
	tests/showo2/test_showo2_parity.py tests/showo2/test_showo2_doors.py tests/families \
	tests/test_architecture.py tests/test_built_in.py tests/test_conversation.py tests/test_requirements.py \
	tests/training/test_trainer.py tests/training/test_lora.py

.PHONY: demo test test-newest check format clean

## demo: set up, then draw, edit and answer with the checkpoint that ships in the package
demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --output demo

## test: set up and run the tests, in WORKERS processes of one thread each: the tensors are too small for more
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

## test-newest: run the core tests on what pip takes without our constraints; CAPS=off: beyond our caps as well
test-newest:
	$(PYTHON) .ci/newest.py --venv $(VENV)-newest --workers $(WORKERS) $(if $(filter off,$(CAPS)),--beyond-caps) $(CORE)

## check: set up and run the linter, the formatter's check and the type checker
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .ci src tests examples benchmarks docs
	$(BIN)/ruff format --check .ci src tests examples benchmarks docs
	$(BIN)/mypy

## format: format the code
format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .ci src tests examples benchmarks docs
	$(BIN)/ruff format .ci src tests examples benchmarks docs

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
