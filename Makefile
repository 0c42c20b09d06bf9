# Everything needs only Python >= 3.11 with venv; the rest is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check
UV := build/uv/bin/uv --no-config --system-certs --quiet
COMPILE := $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --upgrade \
	--custom-compile-command 'make lock'
FAST := --ignore tests/acceptance --ignore tests/chaos

.PHONY: help demo test test-servers test-newest test-oldest chaos check bench map lock clean

help: ## Show this
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

# What requirements-dev.txt names, byte by byte; setuptools, which makes the editable install, is in it, too.
.venv/ready: pyproject.toml requirements-dev.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "rq_lite needs Python 3.11 or newer: make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) --require-hashes --requirement requirements-dev.txt
	$(BIN)/python $(PIP) --no-build-isolation --no-deps --editable .
	touch .venv/ready

demo: .venv/ready ## The main job in 15 seconds: a fast producer, a bounded queue, 2 x 100 greenlets
	$(BIN)/rq-lite demo

test: .venv/ready ## The tests, on one server; SERVERS=all, or some of redis-6.2,path,valkey-9.1
	$(BIN)/pytest --numprocesses 4 --dist worksteal --quiet

test-servers: .venv/ready ## The scripts and what calls them, on the other servers that are here
	SERVERS=others $(BIN)/pytest --numprocesses 4 --dist worksteal --quiet $(FAST)

test-newest: ## The fast tests with the newest releases of everything
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/python $(PIP) --editable '.[dev]'
	SERVERS=$${SERVERS:-valkey-9.1} build/newest/bin/pytest --numprocesses 4 --quiet $(FAST)

test-oldest: build/uv/ready ## The fast tests with the oldest releases that pyproject.toml allows
	$(PYTHON) -m venv --clear build/oldest
	$(UV) pip install --python build/oldest/bin/python --resolution lowest-direct --editable '.[dev]'
	SERVERS=$${SERVERS:-valkey-9.1} build/oldest/bin/pytest --numprocesses 4 --quiet $(FAST)

chaos: .venv/ready ## Faults at random for 35 minutes; SEED=n repeats a run; figures into docs/internals/faults.md
	$(BIN)/pytest --long --numprocesses 4 --quiet $(FAST)
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

map: ## Every file of rq_lite with the line that says what it is
	@for file in $$(git ls-files 'rq_lite/*.py'); do printf '%-40s %s\n' $$file "$$(sed -n '1s/^"""//;1s/"""$$//;1p' $$file)"; done
	@for file in rq_lite/broker/lua/*.lua; do printf '%-40s %s\n' $$file "$$(sed -n '1s/^-- [a-z_]*: //;1p' $$file)"; done

lock: build/uv/ready ## Write the newest releases that pyproject.toml allows, and their hashes, into the requirements files
	$(COMPILE) --extra dev --output-file requirements-dev.txt
	echo setuptools | $(COMPILE) - --extra demo --constraints requirements-dev.txt --output-file requirements.txt

build/uv/ready:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python $(PIP) uv
	touch build/uv/ready

clean: ## Remove what was installed and built
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
