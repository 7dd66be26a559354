# make quickstart    set up, then run the whole way through once: data, training, prediction, report
# make test          set up, then run the tests
# make study         set up, then try the papers' claims at mini scale (hours; it can be interrupted)
# make row ROW=NAME  set up, then run one row of one table at mini scale (minutes)
# make test-kernels  set up, then run the tests with the matrix kernels of several processors
# make test-load     set up, then run the tests three times beside two busy processes
# make lint          set up, then check the style
# make setup         only build the environment, in .venv
# make clean         remove the environment and everything else that was built
#
# PYTHON=python3.12                      the interpreter to build the environment with
# CONSTRAINTS=constraints-oldest.txt     the versions to install
# EXTRAS=dev,cuda12                      the extras of setup.py to install
# VENV=DIR                               where the environment goes
# QUICKSTART_FLAGS=... STUDY_FLAGS=... TEST_FLAGS=...    passed on

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev
VENV ?= .venv
QUICKSTART_FLAGS ?=
STUDY_FLAGS ?=
ROW ?= cs-table1-concurrent-balanced
TEST_FLAGS ?=

# pyenv's python3.13 does not run where that version is installed but not active: ask for its place.
FOUND := $(shell if $(PYTHON) -c '' 2>/dev/null; then echo '$(PYTHON)'; else \
    version=$$(pyenv whence '$(PYTHON)' 2>/dev/null | tail -n 1) && test -n "$$version" && \
    echo "$$(pyenv prefix "$$version")/bin/$(PYTHON)"; fi)
# Should it be the python of a virtual environment, say of an activated .venv, this is the one that
# the environment was made with.
INTERPRETER := $(shell '$(FOUND)' -c 'import sys; \
    print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null)
IDENTITY := $(shell '$(INTERPRETER)' -c 'import os, sys; \
    print(os.path.realpath(sys.executable), sys.version)' 2>/dev/null | cksum | tr -dc 0-9)
CONTENTS := $(shell cat setup.py '$(CONSTRAINTS)' 2>/dev/null | cksum | tr -dc 0-9)
PLACE := $(shell echo '$(CURDIR) $(VENV) $(EXTRAS)' | cksum | tr -dc 0-9)

# The last thing that set-up makes. Its name holds what the environment was made from: whatever
# changes, or was not finished, is built again from nothing.
STAMP := $(VENV)/.set-up-$(IDENTITY)-$(CONTENTS)-$(PLACE)
PIP := '$(VENV)/bin/python' -m pip --disable-pip-version-check -qq install -c '$(CONSTRAINTS)'

.PHONY: help setup quickstart study row test test-kernels test-load lint clean

help:
	@sed -n '/^# /s/^# //p; /^$$/q' Makefile

setup: $(STAMP)

quickstart: $(STAMP)
	@'$(VENV)/bin/python' -m pfdet quickstart $(QUICKSTART_FLAGS)

study: $(STAMP)
	@'$(VENV)/bin/python' -m study $(STUDY_FLAGS)

row: $(STAMP)
	@'$(VENV)/bin/python' -m study --row '$(ROW)' $(STUDY_FLAGS)

test: $(STAMP)
	@'$(VENV)/bin/python' -m pytest -q $(TEST_FLAGS)

test-kernels: $(STAMP)
	@'$(VENV)/bin/python' tests/run_suite.py --kernels Haswell SkylakeX Zen Sandybridge \
	    --threads 1 2 --pytest $(TEST_FLAGS)

test-load: $(STAMP)
	@'$(VENV)/bin/python' tests/run_suite.py --busy 2 --times 3 --pytest $(TEST_FLAGS)

lint: $(STAMP)
	@'$(VENV)/bin/python' -m ruff check .
	@'$(VENV)/bin/python' -m ruff format --check .

clean:
	rm -rf '$(VENV)' build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# Chainer and ChainerCV are source distributions from before PEP 517. They import pkg_resources to
# build, which the setuptools of an isolated build no longer has: hence ours, and no isolation.
# ChainerCV's one C extension does not compile on Python 3.11; CC=true leaves it out (pfdet.compat
# has it in Python), and --no-deps keeps pip from building Chainer a second time.
$(STAMP):
	@test -n '$(INTERPRETER)' || \
	    { echo 'error: $(PYTHON) does not run: name a Python 3.10 to 3.13 by PYTHON=' >&2; exit 2; }
	@'$(INTERPRETER)' -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "error: $(PYTHON) is $$('$(INTERPRETER)' -V 2>&1), expected 3.10 to 3.13:" \
	        'name one by PYTHON=' >&2; exit 2; }
	@'$(INTERPRETER)' -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo 'error: $(PYTHON) lacks venv: install it (on Debian and Ubuntu the package' \
	        'python3-venv), or name another interpreter by PYTHON=' >&2; exit 2; }
	@test -r '$(CONSTRAINTS)' || \
	    { echo 'error: CONSTRAINTS=$(CONSTRAINTS) is not a readable file' >&2; exit 2; }
	@echo "setup: making $(VENV) with $$('$(INTERPRETER)' -V), versions of $(CONSTRAINTS)"
	@rm -rf '$(VENV)'
	@'$(INTERPRETER)' -m venv '$(VENV)'
	@$(PIP) setuptools wheel
	@echo 'setup: building Chainer and ChainerCV'
	@$(PIP) --no-build-isolation 'chainer==7.8.1'
	@CC=true LDSHARED=true $(PIP) --no-build-isolation --no-deps 'chainercv==0.13.1'
	@echo 'setup: installing pfdet and what it needs'
	@$(PIP) --no-build-isolation -e '.[$(EXTRAS)]'
	@touch '$@'
	@echo 'setup: done'
