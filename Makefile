# make quickstart    set up, then run all steps once: data, training, prediction, report
# make test          set up, then run the tests
# make coverage      set up, then run the tests and print their coverage
# make typecheck     set up, then check the types
# make lint          set up, then check the style
# make docs          set up, then build the documentation in build/docs
# make study         set up, then test the papers' claims at mini scale (hours; it can be interrupted)
# make row ROW=NAME  set up, then run one row of one table at mini scale (minutes)
# make test-kernels  set up, then run the tests with the matrix kernels of several processors
# make test-load     set up, then run the tests three times beside two busy processes
# make soak          set up, then run all tests of faults: signals, kills, damaged and hostile files; a table
# make setup         only build the environment, in .venv
# make wheelhouse    build wheels of Chainer and ChainerCV, for pip install --find-links wheelhouse .
# make clean         remove the environment and all other build products
#
# PYTHON=python3.12                      the interpreter of the environment
# CONSTRAINTS=constraints-oldest.txt     the versions to install
# EXTRAS=dev,cuda12                      the extras of setup.py to install
# MPI=mpich                              the MPI: mpich from PyPI, or system for the machine's own
# VENV=DIR                               the folder of the environment
# WORKERS=2                              the number of processes that run the tests
# QUICKSTART_FLAGS=... STUDY_FLAGS=... TEST_FLAGS=...    arguments passed on

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev
MPI ?= mpich
VENV ?= .venv
WHEELHOUSE ?= wheelhouse
QUICKSTART_FLAGS ?=
STUDY_FLAGS ?=
ROW ?= cs-table1-concurrent-balanced
TEST_FLAGS ?=
WORKERS ?= 2

# pyenv's shim of python3.13 fails if that version is installed but not active: ask for its path.
FOUND := $(shell if $(PYTHON) -c '' 2>/dev/null; then echo '$(PYTHON)'; else \
    version=$$(pyenv whence '$(PYTHON)' 2>/dev/null | tail -n 1) && test -n "$$version" && \
    echo "$$(pyenv prefix "$$version")/bin/$(PYTHON)"; fi)
# If that is the python of a virtual environment, such as an activated .venv: its base interpreter.
INTERPRETER := $(shell '$(FOUND)' -c 'import sys; \
    print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null)
IDENTITY := $(shell '$(INTERPRETER)' -c 'import os, sys; \
    print(os.path.realpath(sys.executable), sys.version)' 2>/dev/null | cksum | tr -dc 0-9)
CONTENTS := $(shell cat setup.py '$(CONSTRAINTS)' 2>/dev/null | cksum | tr -dc 0-9)
PLACE := $(shell echo '$(CURDIR) $(VENV) $(EXTRAS) $(MPI)' | cksum | tr -dc 0-9)

# The last file that set-up writes. Its name identifies what the environment was built from: if that
# changes, or a set-up is interrupted, the environment is built again from scratch.
STAMP := $(VENV)/.set-up-$(IDENTITY)-$(CONTENTS)-$(PLACE)
# Each process takes the tests of one half, whose files share fixtures, and helps the other at the end.
IN_WORKERS := -n $(WORKERS) --dist worksteal
PIP := '$(VENV)/bin/python' -m pip --disable-pip-version-check -qq install -c '$(CONSTRAINTS)'

.PHONY: help setup wheelhouse quickstart study row test test-kernels test-load soak coverage typecheck lint docs clean

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
	@'$(VENV)/bin/python' -m pytest -q $(IN_WORKERS) $(TEST_FLAGS)

test-kernels: $(STAMP)
	@'$(VENV)/bin/python' tests/run_suite.py --kernels Haswell SkylakeX Zen Sandybridge \
	    --threads 1 2 --pytest $(IN_WORKERS) $(TEST_FLAGS)

test-load: $(STAMP)
	@'$(VENV)/bin/python' tests/run_suite.py --busy 2 --times 3 --pytest $(IN_WORKERS) $(TEST_FLAGS)

soak: $(STAMP)
	@'$(VENV)/bin/python' -m pytest -q -m 'soak or faults' $(IN_WORKERS) $(TEST_FLAGS)

lint: $(STAMP)
	@'$(VENV)/bin/python' -m ruff check .
	@'$(VENV)/bin/python' -m ruff format --check .

typecheck: $(STAMP)
	@'$(VENV)/bin/python' -m mypy

coverage: $(STAMP)
	@'$(VENV)/bin/python' -m coverage erase
	@'$(VENV)/bin/python' -m coverage run -m pytest -q $(TEST_FLAGS)
	@'$(VENV)/bin/python' -m coverage combine --quiet
	@'$(VENV)/bin/python' -m coverage report

docs: $(STAMP)-docs
	@'$(VENV)/bin/python' -m sphinx -W -q -b html docs build/docs
	@echo 'docs: build/docs/index.html'

clean:
	rm -rf '$(VENV)' '$(WHEELHOUSE)' build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

define CHECK
	@test -n '$(INTERPRETER)' || \
	    { echo 'error: $(PYTHON) does not run: set PYTHON= to a Python 3.10 to 3.13' >&2; exit 2; }
	@'$(INTERPRETER)' -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "error: $(PYTHON) is $$('$(INTERPRETER)' -V 2>&1), expected 3.10 to 3.13:" \
	        'set PYTHON= to one' >&2; exit 2; }
	@'$(INTERPRETER)' -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo 'error: $(PYTHON) lacks venv: install it (on Debian and Ubuntu the package' \
	        'python3-venv), or set PYTHON= to another interpreter' >&2; exit 2; }
	@test -r '$(CONSTRAINTS)' || \
	    { echo 'error: CONSTRAINTS=$(CONSTRAINTS) is not a readable file' >&2; exit 2; }
endef

# mpi4py prefers the library of the package mpich to others, so it must not be there.
define TAKE_MPI
	@test '$(MPI)' = mpich || '$(VENV)/bin/python' -m pip --disable-pip-version-check -qq uninstall \
	    -y mpich
	@'$(VENV)/bin/python' -c 'import mpi4py; mpi4py.rc.initialize = False; \
	    from mpi4py import MPI; \
	    print("setup: MPI is", *MPI.Get_library_version().split(",")[0].splitlines()[0].split())' \
	    2>/dev/null || \
	    { echo 'error: MPI=$(MPI): mpi4py finds no MPI library; load the module of your cluster, or' \
	        'set MPI4PY_LIBMPI to its libmpi.so' >&2; exit 2; }
endef

# Chainer and ChainerCV are source distributions older than PEP 517. Their builds import pkg_resources
# and NumPy without declaring them, so they use the environment's own and are not isolated.
# ChainerCV's one C extension does not compile on Python 3.11; CC=true LDSHARED=true skips it
# (pfdet.compat has a Python replacement).
$(STAMP):
	$(CHECK)
	@case "$(MPI)" in mpich|system) ;; *) \
	    echo "error: MPI=$(MPI): expected mpich or system" >&2; exit 2 ;; esac
	@echo "setup: building $(VENV) with $$('$(INTERPRETER)' -V), versions of $(CONSTRAINTS)"
	@rm -rf '$(VENV)'
	@'$(INTERPRETER)' -m venv '$(VENV)'
	@echo 'setup: installing pfdet and its dependencies'
	@$(PIP) setuptools wheel numpy
	@CC=true LDSHARED=true $(PIP) --no-build-isolation -e '.[$(EXTRAS)]'
	$(TAKE_MPI)
	@touch '$@'
	@echo 'setup: done'

# Sphinx is installed only for the documentation.
$(STAMP)-docs: $(STAMP)
	@echo 'setup: installing Sphinx'
	@$(PIP) --no-build-isolation -e '.[docs]'
	$(TAKE_MPI)
	@touch '$@'

# The wheel of ChainerCV has no compiled code, so one wheel is for all versions of Python.
wheelhouse:
	$(CHECK)
	@rm -rf build/wheels
	@'$(INTERPRETER)' -m venv build/wheels/env
	@build/wheels/env/bin/python -m pip --disable-pip-version-check -qq install \
	    'setuptools<70' 'wheel>=0.40' numpy
	@CC=true LDSHARED=true build/wheels/env/bin/python -m pip --disable-pip-version-check -qq wheel \
	    -c '$(CONSTRAINTS)' --no-build-isolation --no-deps --no-binary chainer,chainercv \
	    -w build/wheels chainer chainercv
	@build/wheels/env/bin/python -m wheel tags --remove --python-tag py3 --abi-tag none \
	    --platform-tag any build/wheels/chainercv-*.whl >/dev/null
	@mkdir -p '$(WHEELHOUSE)'
	@mv build/wheels/*.whl '$(WHEELHOUSE)'
	@rm -rf build/wheels
	@echo 'wheelhouse: $(WHEELHOUSE); pip install --find-links $(WHEELHOUSE) .'
