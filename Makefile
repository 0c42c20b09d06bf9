# Everything needs only Python >= 3.11 with venv; the rest is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test chaos check bench clean

help: ## Show this
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "rq_lite needs Python 3.11 or newer: make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch .venv/ready

demo: .venv/ready ## The main job in 15 seconds: a fast producer, a bounded queue, 2 x 100 greenlets
	$(BIN)/rq-lite demo

test: .venv/ready ## The tests, against every redis-server there is
	$(BIN)/pytest --numprocesses 4 --quiet

chaos: .venv/ready ## Faults at random for 25 minutes; SEED=n repeats a run; figures into docs/guarantees.md
	$(BIN)/pytest tests/chaos --long --timeout 1200 -p no:randomly -p no:xdist --verbose --junitxml build/chaos.xml \
		$(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.chaos.report build/chaos.xml

check: .venv/ready ## Format, lint, types and tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: .venv/ready ## Measure beside other queues, rewrite benchmarks/README.md (15 minutes)
	$(BIN)/python -m benchmarks.venvs
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.report

clean: ## Remove what was installed and built
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
