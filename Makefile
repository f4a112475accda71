# Everything a newcomer needs: `make demo` and `make test` set themselves up with Python >= 3.11.
#
#   make demo                      the crawl of the standard library's documentation
#   make demo ARGS="--store demo.db"   killed and started again, it goes on where it was
#   make demo ARGS=--sequential    the same work without the supervisor, to compare
#   make test ARGS="-k retry"      the suite, on stock asyncio and on uvloop
#   make test PYTHON=python3.12    the suite on another Python, in an environment of its own
#   make bench TABLE=bridge        one of the benchmarks: inproc (the default), bridge, behaviours,
#                                  durable, crash, web, observe, analysis
#   make lint types docs bench ci  what their names say
#
# An environment is made by `python -m venv` from the hashed files in requirements/, and made again
# only when those or pyproject.toml change. Plain pip 23 is enough.

.SUFFIXES:
.DELETE_ON_ERROR:
.PHONY: help demo test coverage lint format types docs bench benchmarks wheel ci lock clean

# The environment of the default Python is .venv; one that was asked for has its own.
ifdef PYTHON
  override PYTHON := $(shell scripts/find-python "$(PYTHON)")
  VENV ?= .venv-$(TAG)
  TAG := $(shell $(or $(PYTHON),false) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
else
  PYTHON := $(shell scripts/find-python "")
  VENV ?= .venv
endif
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.demo
	$(BIN)/asyncworkers demo $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(ARGS)

coverage: $(VENV)/.test
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The oldest and the newest Python: code may differ between them behind `sys.version_info`.
types: $(VENV)/.lint
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.13
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pyright --pythonpath $(BIN)/python --pythonversion 3.13

docs: $(VENV)/.docs
	$(BIN)/zensical build --strict --clean

bench:
	$(MAKE) PYTHON="$(PYTHON)" VENV=$(VENV)-bench TABLE="$(TABLE)" ARGS="$(ARGS)" benchmarks

# Compiled first, as an installer does: what a child process imports is part of its start.
benchmarks: $(VENV)/.bench
	$(BIN)/python -m compileall -q asyncworkers benchmarks
	$(BIN)/python -m benchmarks.$(or $(TABLE),inproc) $(ARGS)

wheel: $(VENV)/.demo
	rm -rf dist
	$(BIN)/python -m hatchling build

ci:
	.ci/run

# Resolve again for every Python and platform at once; `make lock ARGS=--upgrade` takes newer ones.
# dev.txt holds what may share an environment, and keeps the versions of the other files together.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' pyproject.toml
SUBSET = $(COMPILE) --constraints requirements/dev.txt
lock: $(VENV)/.lock
	$(COMPILE) $(ARGS) --all-extras --group dev -o requirements/dev.txt
	$(COMPILE) $(ARGS) --group build --group bench -o requirements/bench.txt
	rm -f requirements/demo.txt requirements/test.txt requirements/lint.txt
	rm -f requirements/docs.txt requirements/lock.txt
	$(SUBSET) --extra demo --group build -o requirements/demo.txt
	$(SUBSET) --all-extras --group build --group test -o requirements/test.txt
	$(SUBSET) --all-extras --group build --group test --group lint -o requirements/lint.txt
	$(SUBSET) --extra demo --group build --group docs -o requirements/docs.txt
	$(SUBSET) --group build --group lock -o requirements/lock.txt

clean:
	rm -rf .venv .venv-* build dist site .cache .coverage* htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "No such Python >= 3.11 with venv and ensurepip was found:" \
		"install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One environment may hold several of these sets: their versions agree, see `lock`.
$(VENV)/.%: requirements/%.txt pyproject.toml | $(VENV)/.created
	$(PIP) install --require-hashes -r $<
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
