# `make demo` and `make test` need nothing but Python and a package index: each makes the
# environment that it runs in. `CONSTRAINTS=/dev/null` takes the newest versions instead of the
# pinned ones, which are for Python 3.11 and later.

PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
DEMO := build/demo
PIP_INSTALL := -m pip --disable-pip-version-check install -qq
CONSTRAINTS ?= constraints.txt
PYTEST_ARGS ?= -n 2 -q

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint format docs bench arena bench-training data constraints clean

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/.run ## Fit, apply and evaluate the sample data
	mkdir -p $(DEMO)
	$(VENV)/bin/calib fit sample_data/digits_val.parquet --test sample_data/digits_test.parquet \
	    -p $(DEMO)/params.json -o $(DEMO)/calibrated.parquet --force
	$(VENV)/bin/calib apply $(DEMO)/params.json sample_data/digits_test.parquet \
	    -o $(DEMO)/applied.parquet --force
	$(VENV)/bin/calib evaluate sample_data/digits_test.parquet --params $(DEMO)/params.json

test: $(VENV)/.test ## Run the tests
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.lint ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.lint ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.test ## Write what commands and examples print into the pages anew
	$(VENV)/bin/python docs/make_reference.py
	$(VENV)/bin/python docs/run_blocks.py

bench: $(BENCH_VENV)/.bench ## Measure calib against its peers
	$(BENCH_VENV)/bin/python benchmarks/run.py $(BENCH_ARGS)

arena: $(BENCH_VENV)/.arena ## Set every method against every calibrator of probmetrics
	$(BENCH_VENV)/bin/python benchmarks/arena.py $(ARENA_ARGS)

bench-training: $(BENCH_VENV)/.bench ## Train a small network with every loss
	$(BENCH_VENV)/bin/python benchmarks/training.py $(BENCH_ARGS)

bench-simulation: $(VENV)/.run ## Check intervals, tests and debiased errors by simulation
	$(VENV)/bin/python benchmarks/simulation.py $(BENCH_ARGS)

data: $(VENV)/.test ## Rebuild the sample data
	$(VENV)/bin/python sample_data/make.py

# HOLD keeps something back, as in `make constraints HOLD=torch==2.13.0`. What torch brings along
# for a GPU differs between machines, and torch pins it by itself.
constraints: ## Pin the newest versions of everything in constraints.txt
	rm -rf build/constraints-venv
	$(PYTHON) -m venv build/constraints-venv
	build/constraints-venv/bin/python $(PIP_INSTALL) -e '.[test,lint,bench]' $(HOLD)
	sed -n '/^#/p' constraints.txt > build/constraints.txt
	build/constraints-venv/bin/python -m pip freeze --exclude-editable \
	    | sed -e '/^\(cuda\|nvidia\|triton\)/d' -e 's/+.*//' >> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## Remove the environments and all that was built
	rm -rf $(VENV) $(BENCH_VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache

# One stamp for each set of requirements. The tests' environment is the demo's with more in it; the
# peers have one of their own.
$(VENV)/.run: EXTRAS :=
$(VENV)/.test: EXTRAS := [test]
$(VENV)/.lint: EXTRAS := [lint]
$(BENCH_VENV)/.bench: EXTRAS := [bench]
$(BENCH_VENV)/.arena: EXTRAS := [arena]
$(VENV)/.run $(VENV)/.test $(VENV)/.lint $(BENCH_VENV)/.bench $(BENCH_VENV)/.arena: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e '.$(EXTRAS)'
	touch $@
