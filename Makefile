# Set-up on a fresh machine is one of these targets: each makes the virtual environment it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo serve test lint format bench clean

demo: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" bash demo.sh

# What the demo promoted, at http://127.0.0.1:8000/ until Ctrl-C; the demo runs first where it has not.
serve: $(VENV)/installed segfleet-data/registry/demo/stages/production
	$(BIN)/python -m inference deploy configs/demo.toml

segfleet-data/registry/demo/stages/production:
	$(MAKE) demo

# The page's tests drive a Chromium; where none can be had they are skipped and say so.
test: $(VENV)/installed-dev
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
	    || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	        && timeout 180 apt-get install -qq -y chromium chromium-driver >/dev/null 2>&1; } \
	    || echo "No chromium and chromium-driver here: the tests of the page are skipped."
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder \
	    --durations=40 --durations-min=2

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "segfleet needs Python 3.11, 3.12 or 3.13; this one is %d.%d (name another: make PYTHON=python3.11 ...)" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing about 3.4 GB into $(VENV); this first time it takes some minutes."

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(VENV)/installed $@

# Quiet machines give better figures; each script prints its table and puts it into benchmarks/README.md.
bench: $(VENV)/installed-dev
	set -e; for name in start_up training_overhead sweep serving; do \
	    $(BIN)/python -m benchmarks.$$name --write; \
	done

clean:
	rm -rf $(VENV) segfleet-data
