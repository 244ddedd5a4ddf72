# Each target creates the virtual environment that it needs, also on a new machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo serve test lint format bench clean

demo: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" bash demo.sh

# Serves the model that the demo promoted at http://127.0.0.1:8000/ until Ctrl-C; runs the demo first
# if it has not run yet.
serve: $(VENV)/installed segfleet-data/registry/demo/stages/production
	$(BIN)/segfleet deploy configs/demo.toml

segfleet-data/registry/demo/stages/production:
	$(MAKE) demo

# The tests of the web page need Chromium; without it they are skipped with a message.
test: $(VENV)/installed-dev
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
	    || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	        && timeout 180 apt-get install -qq -y chromium chromium-driver >/dev/null 2>&1; } \
	    || echo "chromium and chromium-driver are not installed: the tests of the web page are skipped."
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
	@echo "Installing about 3.4 GB into $(VENV); the first time this takes a few minutes."

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	touch $(VENV)/installed $@

# Each script prints its table and writes it to benchmarks/README.md. Run them on an idle machine.
bench: $(VENV)/installed-dev
	set -e; for name in start_up training_overhead input_pipeline sweep serving; do \
	    $(BIN)/python -m benchmarks.$$name --write; \
	done

clean:
	rm -rf $(VENV) segfleet-data
