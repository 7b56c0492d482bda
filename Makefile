# Needs make and Python 3.11 or later; everything else goes into .venv. `make demo` is the first thing to try.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
TENSORFLOW := $(VENV)/.tensorflow
PEERS := .venv-peers
EXTENSION := qnb/labextension/package.json

# An environment that happens to be active is not the one that is used here.
unexport VIRTUAL_ENV

.PHONY: help demo test bench docs extension clean

help:
	@echo "make demo    run the quickstart notebook; results go to demo-output/"
	@echo "make test    run all checks and tests"
	@echo "make bench   measure qnb's overheads, and its quantizer beside others (an hour)"
	@echo "make extension  build the JupyterLab extension into .venv (needs Node.js 20 or later)"
	@echo "make docs    build the documentation into docs/_build/html"
	@echo "make clean   remove the environment and what was built"

demo: $(READY)
	$(BIN)/qnb demo --out demo-output

test: $(READY) $(TENSORFLOW)
	@tools/system.sh
	$(MAKE) --no-print-directory extension
	cd extension && npm run --silent check && npm test --silent
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory docs
	@tools/pytest.sh $(BIN)/pytest

bench: $(READY) $(PEERS)/.installed
	$(BIN)/python -m tests.benchmarks.bench
	$(BIN)/python -m tests.benchmarks.calibration
	$(BIN)/python -m tests.benchmarks.peers --python $(PEERS)/bin/python

extension: $(EXTENSION)

# The link stands in the environment's share/, so a build is seen when the page is loaded again.
$(EXTENSION): $(READY) extension/package-lock.json $(shell find extension/src extension/style extension/schema -type f)
	cd extension && npm ci --no-audit --no-fund --silent
	cd extension && PATH="$(CURDIR)/$(BIN):$$PATH" npm run --silent build:prod
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter-builder develop --overwrite . > /dev/null

docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going -n -q docs docs/_build/html

clean:
	rm -rf $(VENV) $(PEERS) docs/_build demo-output build dist qnb/labextension extension/lib extension/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# torch comes first and alone: where pip is offered a CPU build of it, that is taken, a tenth of the CUDA build's size.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "There is no $(PYTHON) here. qnb needs Python 3.11 or later." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "qnb needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name a newer one, for instance: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into $(VENV): about 2 GB, a minute or more."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet torch==2.13.0
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[test]"
	@touch $@

# Models of TensorFlow are tested, and nothing else needs it: 1.3 GB more.
$(TENSORFLOW): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[tensorflow]"
	@touch $@

# The quantizers that qnb is measured beside, in an environment of their own: qnb depends on none of them.
$(PEERS)/.installed: tests/benchmarks/requirements-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet torch==2.13.0
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet -r tests/benchmarks/requirements-peers.txt
	@touch $@
