# make demo   virtual environment, installation, python trainers/demo.py
# make test   the same with the development tools, then pytest in JOBS processes (default: a core each, 4 at
#             most)                                                make test ARGS="-m 'not slow'" JOBS=1
# make lint   ruff, mypy, codespell: exactly what CI runs
# make bench  every tests/benchmarks/bench_*.py, one after the other
#
# The environment lies in .venv of this clone; PYTHON=/path/to/python3.11 chooses the interpreter that makes it.

VENV := .venv
PY := $(VENV)/bin/python
# The first of these names that really runs and is new enough (a version manager's shim may exist and not run).
PYTHON ?= $(shell for name in python3.11 python3.12 python3 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$name"; break; }; done)
ARGS ?=
JOBS ?= $(shell "$(PYTHON)" -c 'import os; print(min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4))' 2>/dev/null || echo 1)

# Nothing here reports home or asks a hub; weights come from files or from a cache.
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint bench
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-run
	$(PY) trainers/demo.py $(ARGS)

test: $(VENV)/.installed-dev
	$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m codespell_lib

bench: $(VENV)/.installed-dev
	@set -e; for file in tests/benchmarks/bench_*.py; do \
		if [ ! -e "$$file" ]; then echo "no tests/benchmarks/bench_*.py yet"; exit 0; fi; \
		echo "== $$file"; $(PY) "$$file" $(ARGS); done

# Stamps: a second call installs nothing unless the metadata or the pins changed. They are touched last, so an
# installation that was interrupted is taken up again.
$(VENV)/.installed-run: $(VENV)/.made pyproject.toml constraints.txt
	$(PY) -m pip install -c constraints.txt -e ".[tensorboard]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PY) -m pip install -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.made:
	@[ -n "$(PYTHON)" ] || { \
		echo "error: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@if "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then "$(PYTHON)" -m venv $(VENV); \
	elif "$(PYTHON)" -c 'import pip, venv' 2>/dev/null; then \
		echo "$(PYTHON) has no ensurepip; its own pip fills $(VENV) instead"; \
		"$(PYTHON)" -m venv --without-pip $(VENV) && "$(PYTHON)" -m pip --python $(PY) install pip; \
	else \
		echo "error: $(PYTHON) has neither ensurepip nor pip; on Debian or Ubuntu: apt-get install python3-venv," \
			"or name another: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; \
	fi
	@touch $@
