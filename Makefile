PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
# Touched last, so that a set-up which died half-way runs again.
STAMP := $(VENV)/.stamp
ZERO_VENV := .venv-deepspeed
DOCS_STAMP := $(VENV)/.docs-stamp
CONSUMERS := .venv-consumers

# The oldest versions of everything, on the oldest Python that has them.
LOWEST_PYTHON ?= python3.10
LOWEST := .venv-lowest
FUZZ ?= 20

define demo-data
	$(1)/bin/python -m pip install --no-deps --ignore-requires-python -r requirements-demo-data.txt
	$(1)/bin/python -m pip download --no-deps --no-binary vaderSentiment -d $(1)/share/weightlora vaderSentiment==3.3.2
	$(1)/bin/python -m benchmarks.archives
endef

# It needs a network, and 8 GB of disk for the packages of one environment at a time where torch brings CUDA.
define use-wheel
	WEIGHTLORA_WHEELS=$(abspath $(1)) $(BIN)/python -m pytest tests/wheel $(ARGS)
endef

.DEFAULT_GOAL := help
.PHONY: setup quickstart test coverage mutants nightly nightly-deepspeed test-lowest fuzz page-test docs-test wheel-test consumers lint bench bench-gpu speed-json bench-quality results-json golden paper paper-here docs release clean help

setup: $(STAMP) ## install everything into .venv (PYTHON=python3.12 picks the interpreter)

# Compiled at the end, because pip compiles on one core.
$(STAMP): pyproject.toml requirements-demo-data.txt benchmarks/archives.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --no-compile -e '.[dev]'
	$(call demo-data,$(VENV))
	$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

quickstart: $(STAMP) ## train, choose and draw on a small real model, no network (ARGS=...)
	HF_HUB_OFFLINE=1 $(BIN)/weightlora quickstart $(ARGS)

test: $(STAMP) ## run the tests (ARGS="-m 'not slow'" for the quick ones)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

coverage: $(STAMP) ## run the tests, and list the lines of src/ that none of them runs (fails below 92 %; ARGS=...)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n auto --dist worksteal $(ARGS)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

mutants: $(STAMP) ## change budget, rules, adapters and state a little at a time: some test must fail each time (FILES=...)
	$(BIN)/python -m pip install -q -e '.[mutants]'
	$(BIN)/python tests/mutants.py $(FILES)

consumers: $(CONSUMERS)/.stamp ## let the tools that read our settings and adapters read them (ARGS=...)
	WEIGHTLORA_CONSUMERS=$(abspath $(CONSUMERS))/share $(CONSUMERS)/bin/python -m pytest tests/consumers $(ARGS)

# It sees what is in .venv, and keeps in share/ what would disagree with that.
$(CONSUMERS)/.stamp: $(STAMP) requirements-consumers.txt requirements-consumers-apart.txt
	$(BIN)/python -m venv $(CONSUMERS)
	$(BIN)/python -c 'import sysconfig as s; print("import site; site.addsitedir(%r)" % s.get_path("purelib"))' \
	  > "$$($(CONSUMERS)/bin/python -c 'import sysconfig as s; print(s.get_path("purelib"))')/venv.pth"
	$(CONSUMERS)/bin/python -m pip install --no-deps -r requirements-consumers.txt
	grep -v '^#' requirements-consumers-apart.txt | while read -r folder packages; do \
	  $(CONSUMERS)/bin/python -m pip install --no-deps --upgrade --target $(CONSUMERS)/share/$$folder $$packages \
	  || exit 1; done
	$(CONSUMERS)/bin/python -m pip download --no-deps --no-binary llama-cpp-python -d $(CONSUMERS)/share llama-cpp-python==0.3.36
	tar -xzf $(CONSUMERS)/share/llama_cpp_python-0.3.36.tar.gz -C $(CONSUMERS)/share
	touch $@

page-test: $(STAMP) ## test the page of `weightlora show` in headless Chromium, which the system or Playwright has
	$(BIN)/python -m pip install -q -e '.[browser]'
	$(BIN)/python -m pytest tests/report/test_browser.py $(ARGS)

docs-test: $(DOCS_STAMP) ## build the site, open each page in headless Chromium, and run the notebook (ARGS=...)
	$(BIN)/python -m pip install -q -e '.[browser]'
	$(BIN)/python -m pytest tests/test_site.py tests/test_notebook.py $(ARGS)

wheel-test: $(STAMP) ## build the wheel, and use it alone and with each extra, in environments with nothing else
	rm -rf build/wheel
	$(BIN)/python -m pip wheel -q --no-deps -w build/wheel .
	$(call use-wheel,build/wheel)

fuzz: $(STAMP) ## twenty times as many odd and damaged inputs, new ones, and 40 kills; prints what was tried (FUZZ=20)
	WEIGHTLORA_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz $(ARGS)

test-lowest: $(LOWEST)/.stamp ## run the tests with the oldest versions that pyproject.toml allows (LOWEST_PYTHON=python3.10)
	$(LOWEST)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

$(LOWEST)/.stamp: pyproject.toml requirements-lowest.txt requirements-demo-data.txt benchmarks/archives.py
	$(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --upgrade pip
	$(LOWEST)/bin/python -m pip install -e '.[test]' -c requirements-lowest.txt
	$(call demo-data,$(LOWEST))
	touch $@

nightly: nightly-deepspeed consumers page-test docs-test wheel-test fuzz test-lowest ## run the slower tests, most of which need more than .venv

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

bench: $(STAMP) ## measure speed and memory of a step (ARGS=...)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks speed $(ARGS)

bench-gpu: $(STAMP) ## the same with a model of 1 B parameters, on a CUDA GPU (ARGS=...)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks speed --gpu $(ARGS)

speed-json: $(STAMP) ## measure what the summary needs, and print it as JSON (use make -s; ARGS=...)
	@HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks speed --json $(ARGS)

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

release: $(STAMP) ## check everything, build the wheel into dist/, and print how to upload it
	$(BIN)/python .ci/release.py
	$(MAKE) lint test docs docs-test
	rm -rf dist
	$(BIN)/python -m pip install -q build twine
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(call use-wheel,dist)
	@echo "git tag v$$($(BIN)/python .ci/release.py) && git push --tags && $(BIN)/python -m twine upload dist/*"

clean: ## remove all environments, caches and built files; runs/ stays
	rm -rf $(VENV) $(CONSUMERS) $(LOWEST) $(ZERO_VENV) build dist site .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
