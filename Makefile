# Driftline: `make help` lists what there is.
SHELL := /bin/sh
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SOURCES := components pipelines serving
# What is tested, and pytest's own options: `make test TESTS=tests/components/kernel PYTEST_ARGS=-x`. By default there is a
# process more than cores; a file's tests stay together, since some share a server that takes seconds to start.
TESTS ?= tests
PYTEST_ARGS ?= -n auto --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo demo-stream test lint typecheck format compile golden bench peers images lock clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The environment is made once, and again when a lock changes: nothing enters it whose SHA-256 is not in one. The CUDA
# libraries are installed where torch's build asks for them, as it does on Linux. The package is installed anew when a
# source file comes or goes: a strict editable install links files one by one.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCKED := $(PIP) install --require-hashes --no-deps --no-build-isolation --use-pep517
$(VENV)/.locked: images/build.lock requirements.lock requirements-cuda.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(LOCKED) -r images/build.lock
	$(LOCKED) -r requirements.lock
	$(PIP) check >/dev/null || $(LOCKED) -r requirements-cuda.lock
	$(PIP) check
	touch $@

$(VENV)/.sources: FORCE
	@mkdir -p $(VENV)
	@find $(SOURCES) pyproject.toml -name '*.py' -o -name '*.toml' -o -name '*.j2' -o -name '*.css' -o -name '*.yaml' -o -name py.typed \
		| LC_ALL=C sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(VENV)/.installed: $(VENV)/.locked $(VENV)/.sources pyproject.toml
	rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--editable . --config-settings editable_mode=strict
	touch $@

.PHONY: FORCE
FORCE:

demo: $(VENV)/.installed ## Find drift in real film reviews, from texts to reports
	$(BIN)/driftline demo

demo-stream: $(VENV)/.installed ## Stream them through every part of the streaming side, until the alarm
	$(BIN)/driftline demo-stream

test: $(VENV)/.installed ## Run the tests, the layers' check, the linters and the type checker
	$(MAKE) --no-print-directory lint
	PYTHONSAFEPATH=1 $(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS)

lint: $(VENV)/.installed ## Check style, layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory typecheck

typecheck: $(VENV)/.installed ## Check types
	$(BIN)/pyright

format: $(VENV)/.installed ## Format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(VENV)/.installed ## Write what is made of the declarations: pipelines/yaml/ and the tables of the components' READMEs
	$(BIN)/driftline compile --all --out pipelines/yaml
	$(BIN)/python -m tests.support.component_readmes

compile: $(VENV)/.installed ## Compile the pipelines and the components to build/pipelines/*.yaml
	$(BIN)/driftline compile --all --out build/pipelines

bench: $(VENV)/.installed ## Measure speed and memory, printed as tables and written to bench-results/
	$(BIN)/python tests/bench/kernel.py
	$(BIN)/python tests/bench/level_power.py
	$(BIN)/python tests/bench/online.py
	$(BIN)/python tests/bench/encoder.py
	$(BIN)/python tests/bench/encoder_memory.py
	$(BIN)/python tests/bench/reading.py
	$(BIN)/python tests/bench/serving.py
	$(BIN)/python tests/bench/streaming.py
	$(BIN)/python tests/bench/monitoring.py

peers: ## Make the environment of the benchmarks' peers
	$(PYTHON) tests/bench/peers/install.py

images: ## Build the container images with docker, podman or buildah
	sh images/build.sh

lock: $(VENV)/.installed ## Lock the versions for development and for the images again
	$(BIN)/python images/lock.py $(if $(UPGRADE),--upgrade)

clean: ## Remove what the other targets made, the environment included
	rm -rf $(VENV) .venv-peers build dist .demo bench-results .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf ./*.egg-info
