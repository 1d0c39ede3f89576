PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROWS := *
DEVICE := cpu

.PHONY: help setup check format test slow docs bench demo clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## create .venv with everything that samfit and its tests need

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "samfit needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

check: $(STAMP)  ## linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(STAMP)  ## let the linter and the formatter mend what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: check  ## check, then the quick tests (about five minutes on two cores)
	$(BIN)/python -m pytest -n 2 -m 'not slow'

slow: $(STAMP)  ## only the tests that take minutes
	$(BIN)/python -m pytest -n 2 -m slow --timeout 1500

docs: $(STAMP)  ## write the reference anew and build the site in docs/_build/html, without a warning
	$(BIN)/python docs/reference.py
	$(BIN)/python -m sphinx --builder html --fail-on-warning --nitpicky --quiet docs docs/_build/html

bench: $(STAMP)  ## measure memory and time, over an hour, and write the docs' tables; ROWS='cad*' for a part, DEVICE=cuda
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/memory.py --device $(DEVICE) --rows "$(ROWS)"
	$(BIN)/python benchmarks/speed.py --device $(DEVICE) --rows "$(ROWS)"
	$(BIN)/python benchmarks/tables.py --show machine step-memory memory-order techniques bf16-memory \
		batch-memory resident-memory speed inference

demo: $(STAMP)  ## adapt sam-tiny to drawn lesions, and show before and after side by side
	$(BIN)/samfit demo --output demo-run --overwrite

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache demo-run docs/_build
