# The commands of this repository; `make` lists them.
# They need only Python 3.11 or newer, git and make.

PYTHON ?= python3
CORES  ?= all

# Everything below runs in .venv, which need not be activated.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

ENVIRONMENT := .venv/complete
SNAKEMAKE   := .venv/bin/snakemake --cores $(CORES)

# Let Python keep compiled files, so that every start is faster.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help reproduce docs test test-slow test-cluster lint bench format environment lock readme clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

reproduce: $(ENVIRONMENT)  ## draw every table and figure from the recorded results; trains nothing
	@$(SNAKEMAKE) --quiet all --config train=false
	@echo "make: results/tables and results/figures are drawn from the recorded results"
	@echo "make: results/report.html shows all of them; open it in a browser"

docs: $(ENVIRONMENT)  ## build the documentation as a site: build/site/index.html
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build
	@echo "make: the documentation is build/site/index.html"

# Each process runs one test file at a time, in the order of tests/conftest.py. There is one more
# than processors, because tests of the workflow also wait.
SIDE_BY_SIDE := --numprocesses $(shell expr 1 + $$(getconf _NPROCESSORS_ONLN)) --maxprocesses 4 \
	--dist loadfile --no-loadscope-reorder

# The networks in tests are tiny, so threads would only wait for each other.
test test-slow test-cluster: export OMP_NUM_THREADS = 1

test: $(ENVIRONMENT) lint  ## check the code, then run the tests (minutes)
	.venv/bin/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-slow: $(ENVIRONMENT)  ## run the tests that take longer
	.venv/bin/python -m pytest -m slow

test-cluster: $(ENVIRONMENT)  ## run a real SLURM cluster on this machine, and every fault (Debian, root; an hour)
	.venv/bin/python tests/cluster/slurm.py install
	VLAE_CLUSTER=1 .venv/bin/python -m pytest -m "cluster or faults" --record-figures $(SIDE_BY_SIDE)

lint: $(ENVIRONMENT)  ## check style, types and the workflow
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/snakefmt --check --compact-diff Snakefile workflow/rules
	.venv/bin/snakemake --lint

bench: $(ENVIRONMENT)  ## measure the speed of the core on this machine: results/benchmarks.md (minutes)
	PYTHONPATH=src .venv/bin/python -m benchmarks.run $(BENCH)
	PYTHONPATH=src .venv/bin/python -m benchmarks.colour

format: $(ENVIRONMENT)  ## format the code as lint requires
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	.venv/bin/snakefmt Snakefile workflow/rules

environment: $(ENVIRONMENT)  ## set up .venv only

$(ENVIRONMENT): requirements.lock pyproject.toml $(addprefix workflow/scripts/,setup_environment.py startup.py dvc_patched.py)
	@$(PYTHON) workflow/scripts/setup_environment.py
	@touch $@

lock: $(ENVIRONMENT)  ## write requirements.lock from pyproject.toml (UPGRADE=1: newest versions)
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --custom-compile-command "make lock" --extra workflow --extra dev \
	  $(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml

readme: $(ENVIRONMENT)  ## write the generated parts of README.md again
	.venv/bin/python workflow/scripts/readme.py

clean:  ## remove files that are quickly made again (not data, checkpoints or the cache)
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis .snakemake/log build results/logs results/report.html
	find src tests workflow -name __pycache__ -prune -exec rm -rf {} +
