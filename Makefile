# Each target does its own set-up: a clone and `make demo` is all there is to it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LABEL_STUDIO_VENV ?= .venv-label-studio

.PHONY: demo test test-label-studio bench-quick check format clean

demo: $(READY)  ## compare strategies on a small data set; prints where the tables and curves are
	$(BIN)/al-lightning compare

test: export OMP_NUM_THREADS = 1
test: $(READY)  ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup  # tests on a cluster share it

test-label-studio: export LABEL_STUDIO = $(CURDIR)/$(LABEL_STUDIO_VENV)/bin/label-studio
test-label-studio: $(READY) $(LABEL_STUDIO_VENV)/.ready  ## its tests against a real server, in an environment of its own
	$(BIN)/python -m pytest tests/label_studio

bench-quick: export OMP_NUM_THREADS = 1
bench-quick: $(READY)  ## the savings benchmark on a quarter of its labels, in a minute
	$(BIN)/python -m benchmarks.savings letter --quick

check: $(READY)  ## lint, format, types, and every file under conf/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/cli/test_config.py

format: $(READY)  ## repair what `make check` finds in lint and format, where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## the environment and caches; runs and results stay
	rm -rf $(VENV) $(LABEL_STUDIO_VENV) build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo '$(PYTHON) cannot make a virtual environment. On Debian: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'constraints.txt pins releases for Python 3.11 or later: make PYTHON=python3.11 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev,ray]'
	@touch $@

$(LABEL_STUDIO_VENV)/.ready:
	$(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	$(LABEL_STUDIO_VENV)/bin/python -m pip install --quiet label-studio==1.23.2
	@touch $@
