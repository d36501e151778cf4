# make tune, make test, ...: each creates .venv first if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: tune train test test-quick test-slow check bench
.DEFAULT_GOAL := tune

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --editable ".[train]"
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

tune: $(VENV)/.installed
	$(BIN)/python jobs/tune.py

train: $(VENV)/.installed
	$(BIN)/python jobs/train.py

# Tests of a file share fixtures, so they run in one process (loadfile). OpenMP threads that spin while they wait would
# take the cores of concurrent trainings. The tests marked alone check deadlines.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test test-quick: export OMP_WAIT_POLICY = passive
# Bytecode is kept: the processes of the tests would compile the same files again and again.
test test-quick: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.installed-test
	$(PYTEST) -m "not slow and not alone"
	$(BIN)/python -m pytest tests/jobs/test_tune.py tests/watch/test_live.py -m "alone and not slow"

# No Ray, no command, no long training.
test-quick: $(VENV)/.installed-test
	$(PYTEST) -m "not slow and not alone and not long"

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/.installed-test
	$(BIN)/python tests/benchmarks/loop.py
