# `make demo` and `make test` need nothing but Python and a package index: each makes the
# environment that it runs in. `CONSTRAINTS=/dev/null` takes the newest versions instead of the
# pinned ones.

PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
DEMO := build/demo
PIP_INSTALL := -m pip --disable-pip-version-check install -qq
CONSTRAINTS ?= constraints.txt
# What is costly is shared by the tests of a file, which run in one process; the files in the order
# of their names, at whose end there are only short ones.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder -q
# What `make test-python` runs: make test-python PYTHON=python3.13
PYTHON_VENV = build/venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# The tests that cover most of the code in least time. `make test` runs all.
CHECKED := tests/test_layers.py tests/test_names.py tests/test_params.py tests/test_gates.py \
    tests/test_fitting.py tests/test_metrics_definitions.py tests/test_objectives_vectors.py \
    tests/test_tables_reading.py tests/test_report_golden.py tests/test_cli_refusals.py

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check lint format docs man site test-python test-lowest test-integrations test-tracking bench arena \
    bench-gpu bench-recovery bench-training bench-simulation bench-gates fuzz data constraints clean

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/.run ## Fit, apply and evaluate the sample data
	mkdir -p $(DEMO)
	$(VENV)/bin/calib fit sample_data/digits_val.parquet --test sample_data/digits_test.parquet \
	    -p $(DEMO)/params.json -o $(DEMO)/calibrated.parquet --force
	$(VENV)/bin/calib apply $(DEMO)/params.json sample_data/digits_test.parquet \
	    -o $(DEMO)/applied.parquet --force
	$(VENV)/bin/calib evaluate sample_data/digits_test.parquet --params $(DEMO)/params.json

# COVERAGE=yes prints the branches that no test takes.
ifeq ($(COVERAGE),yes)
test: $(VENV)/.test ## Run all tests; COVERAGE=yes prints the branches that none of them takes
	rm -rf build/coverage
	$(VENV)/bin/coverage run -m pytest $(PYTEST_ARGS)
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report
else
test: $(VENV)/.test
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)
endif

check: $(VENV)/.test $(VENV)/.lint ## Style, types and the quick tests, within a minute
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS) -m 'not slow' $(CHECKED)

lint: $(VENV)/.lint ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.lint ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.test ## Write what commands and examples print into the pages anew
	$(VENV)/bin/python docs/make_reference.py
	$(VENV)/bin/python docs/make_man.py
	$(VENV)/bin/python docs/run_blocks.py

man: $(VENV)/.run ## Write the manual pages in man/ anew, from the same source as --help
	$(VENV)/bin/python docs/make_man.py

site: $(VENV)/.docs ## Build the documentation as a site in build/site
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

test-python: ## Run the tests without torch on another Python: PYTHON=python3.13
	$(PYTHON) -m venv $(PYTHON_VENV)
	$(PYTHON_VENV)/bin/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e '.[test]'
	$(PYTHON_VENV)/bin/python -m pytest $(PYTEST_ARGS)

test-lowest: ## Run the tests with the lower bounds of pyproject.toml
	$(PYTHON) -m venv build/venv-lowest
	$(PYTHON) .ci/lowest.py > build/constraints-lowest.txt
	build/venv-lowest/bin/python $(PIP_INSTALL) -c build/constraints-lowest.txt -e '.[test]'
	build/venv-lowest/bin/python -m pytest $(PYTEST_ARGS)

test-integrations: build/venv-integrations/.done ## Test with what Polars, DuckDB, pandas and others write and read
	build/venv-integrations/bin/python -m pytest $(PYTEST_ARGS) tests/integrations

build/venv-integrations/.done: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e '.[test-integrations]'
	touch $@

# MLflow holds pyarrow back, so nothing is pinned here.
test-tracking: build/venv-tracking/.done ## Test with MLflow, DVC and other trackers of experiments
	build/venv-tracking/bin/python -m pytest $(PYTEST_ARGS) tests/integrations/test_tracking.py

build/venv-tracking/.done: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP_INSTALL) -e '.[test-tracking]'
	touch $@

bench: $(BENCH_VENV)/.bench ## Measure calib against its peers
	$(BENCH_VENV)/bin/python benchmarks/run.py $(BENCH_ARGS)

bench-gpu: $(VENV)/.test ## Measure on a GPU, in less than six minutes
	$(VENV)/bin/python benchmarks/gpu.py $(BENCH_ARGS)

arena: $(BENCH_VENV)/.arena ## Set every method against every calibrator of probmetrics
	$(BENCH_VENV)/bin/python benchmarks/arena.py $(ARENA_ARGS)

bench-recovery: $(BENCH_VENV)/.arena ## Measure how near methods come to truths that are known
	$(BENCH_VENV)/bin/python benchmarks/recovery.py $(BENCH_ARGS)

bench-training: $(BENCH_VENV)/.bench ## Train a small network with every loss
	$(BENCH_VENV)/bin/python benchmarks/training.py $(BENCH_ARGS)

bench-simulation: $(VENV)/.run ## Check intervals, tests and debiased errors by simulation
	$(VENV)/bin/python benchmarks/simulation.py $(BENCH_ARGS)
	$(VENV)/bin/python benchmarks/levels.py
	$(VENV)/bin/python benchmarks/trends.py

bench-gates: $(VENV)/.run ## Count how often gates fail for models with known errors
	$(VENV)/bin/python benchmarks/gate_rates.py $(BENCH_ARGS)

fuzz: $(VENV)/.run ## Hurt 10,000 files of every format and read them; FUZZ_ARGS="--tries 100"
	$(VENV)/bin/python benchmarks/fuzz.py --keep build/fuzz $(FUZZ_ARGS)

data: $(VENV)/.test ## Rebuild the sample data
	$(VENV)/bin/python sample_data/make.py

# HOLD keeps something back, as in `make constraints HOLD=torch==2.13.0`. What torch brings along
# for a GPU differs between machines, and torch pins it by itself.
constraints: ## Pin the newest versions of everything in constraints.txt
	rm -rf build/constraints-venv
	$(PYTHON) -m venv build/constraints-venv
	build/constraints-venv/bin/python $(PIP_INSTALL) -e '.[test-torch,test-integrations,docs,lint,bench]' $(HOLD)
	sed -n '/^#/p' constraints.txt > build/constraints.txt
	build/constraints-venv/bin/python -m pip freeze --exclude-editable \
	    | sed -e '/^\(cuda\|nvidia\|triton\)/d' -e 's/+.*//' >> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## Remove the environments and all that was built
	rm -rf $(VENV) $(BENCH_VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache

# One stamp for each set of requirements. The tests' environment is the demo's with more in it; the
# peers have one of their own.
$(VENV)/.run: EXTRAS :=
$(VENV)/.test: EXTRAS := [test-torch]
$(VENV)/.lint: EXTRAS := [lint]
$(VENV)/.docs: EXTRAS := [docs]
$(BENCH_VENV)/.bench: EXTRAS := [bench]
$(BENCH_VENV)/.arena: EXTRAS := [arena]
$(VENV)/.run $(VENV)/.test $(VENV)/.lint $(VENV)/.docs $(BENCH_VENV)/.bench $(BENCH_VENV)/.arena: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e '.$(EXTRAS)'
	touch $@
