# make setup | demo | test | check | second | docs | chaos | bench      PYTHON=python3.12 picks another interpreter
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
QUICK  := not (slow or process or cluster or chaos or full_data or second_server)
CODE   := streams projections processors tests benchmarks docs aurastream/__init__.py

.PHONY: setup demo test check lint types quick second docs chaos bench format clean
.DELETE_ON_ERROR:

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.ready
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

demo: setup # the shipped slice, as README goes on with it; `aurastream demo` takes ../shared/data where that is
	$(BIN)/aurastream demo --slice

test: setup # three at a time on two cores, as much of it waits; SEED=n takes back the order of "Using --randomly-seed=n"
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not full_data" $(if $(SEED),--randomly-seed=$(SEED))

check: lint types quick # before every commit: under half a minute on two idle cores, by `time make check` the second time

lint: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: setup
	$(BIN)/mypy

quick: setup
	$(BIN)/python -m pytest -q -x -n 2 --dist worksteal -m "$(QUICK)"

second: setup # second opinions, half a minute more: pyright on the types, vulture on what nobody uses
	$(BIN)/basedpyright
	$(BIN)/vulture

chaos: setup # make chaos SEED=7 ROWS=1,2,36 SECONDS=60 MINUTES=60: the fault matrix at full length, storms for the rest of the time, simulation
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(ROWS),--rows $(ROWS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(MINUTES),--minutes $(MINUTES))
	$(BIN)/python -m pytest -m full_data
	$(BIN)/python -m tests.simulation --minutes $(or $(SIMULATED),2) $(if $(SEED),--first-seed $(SEED)000000)

format: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

$(VENV)/.docs: $(VENV)/.ready
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

docs: setup $(VENV)/.docs # the reference pages from the code, then docs/_build/html/index.html; a warning fails
	$(BIN)/python docs/reference/make.py
	$(BIN)/python -m sphinx --jobs auto --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

bench: setup $(VENV)/.bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) docs/_build
