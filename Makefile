# The one definition of each command.  `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PORT ?= 3000
HOST ?= 127.0.0.1
WEIGHTS ?= auto
VARIANT ?= cpu
PYTHON ?= python3
PROFILE ?= steady
SLO_MS ?= 100

VENV := .venv
BIN := $(VENV)/bin
# The store lives in the project, so that trying it leaves nothing in your home; an exported BENTOML_HOME wins.
export BENTOML_HOME ?= $(CURDIR)/.bentoml
export BENTOML_DO_NOT_TRACK := True
export PYTHONPATH := $(CURDIR)

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on

# Weights that were named are built; where they are in the store already, they become the newest again.
MODEL_THERE = $(if $(filter file,$(origin WEIGHTS)),compgen -G "$(BENTOML_HOME)/models/resnet18-*/latest" >/dev/null,false)

LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11

.PHONY: help serve model bento image test test-image lint lock audit load plan corpus fuzz bench bench-gpu clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  settings: PORT=3000 HOST=127.0.0.1 WEIGHTS=auto|imagenet|demo|PATH, and RESNET18_* (docs/operations.md)"

serve: $(VENV)/build.done ## Set up, build the model if there is none or WEIGHTS says which, and serve it on PORT
	@$(MODEL_THERE) || $(MAKE) --no-print-directory model
	@echo "Once it says ready, open http://$(HOST):$(PORT) in a browser, or:"
	@echo "  curl -F image=@photo.jpg http://$(HOST):$(PORT)/classify"
	@exec $(BIN)/bentoml serve service:ResNet18 --host $(HOST) --port $(PORT)

model: $(VENV)/build.done ## Build and register the model (WEIGHTS=..., ARGS="--help" for all options)
	@echo "Building the model ..."
	@$(BIN)/python -m model_build --weights '$(WEIGHTS)' $(ARGS)

bento: $(VENV)/dev.done ## Pack service, model and requirements into a bento
	@$(MODEL_THERE) || $(MAKE) --no-print-directory model
	@$(BIN)/bentoml build

image: $(VENV)/dev.done ## Build the container image (VARIANT=cpu|gpu|torchscript|edge, BASE=..., TORCH_INDEX=...)
	@$(MODEL_THERE) || $(MAKE) --no-print-directory model
	@$(BIN)/python -m deploy.image --variant $(VARIANT) $(if $(BASE),--base $(BASE)) \
		$(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)) -- $(BUILD_ARGS)

test-image: $(VENV)/dev.done ## Build the image and run it for real: hardened, loaded, stopped, killed (4 minutes)
	@VARIANT=$(VARIANT) TORCH_INDEX=$(TORCH_INDEX) $(BIN)/python -m pytest -m image tests/test_image.py

lock: $(VENV)/dev.done ## Lock what images install, with hashes (LOCK_ARGS=... for an index of torch's CPU wheels)
	@for set in runtime gpu; do $(LOCK) -o requirements/$$set.lock requirements/$$set.txt; done
	@$(LOCK) $(LOCK_ARGS) --no-emit-package torch -o requirements/torchscript.lock \
		requirements/runtime.txt requirements/torchscript.txt

test: $(VENV)/dev.done ## Set up and run lint, types and every test
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest

lint: $(VENV)/dev.done ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

audit: $(VENV)/dev.done ## Ask the public advisory database about every package that is served with
	@$(BIN)/uv tool run --from pip-audit==2.9.0 pip-audit --strict --disable-pip --no-deps -r requirements/runtime.txt

corpus: $(VENV)/dev.done ## Send every file of DIR to the service and print what came back (ARGS="--help" for options)
	@$(MODEL_THERE) || $(MAKE) --no-print-directory model
	@$(BIN)/python -m tests.corpus $(DIR) $(ARGS)

fuzz: $(VENV)/fuzz.done ## Fuzz the image decoder for a minute, led by coverage (ARGS="--seconds 600")
	@$(BIN)/python -m tests.fuzz_pixels $(ARGS)

bench: $(VENV)/build.done .venv-bench/bench.done ## Measure it beside its peers, 15 to 25 minutes (ARGS=--quick for a smoke test)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(VENV)/build.done ## Measure it on this machine's GPU
	@$(BIN)/python -m benchmarks --only gpu $(ARGS)

# HOST is where `make serve` listens; only one that was given names a server to load.
OWN_SERVER := $(filter file,$(origin HOST))
LOADED = $(if $(OWN_SERVER),--serve "$(BIN)/bentoml serve service:ResNet18 --host 127.0.0.1 --port {port}",--host $(HOST))

load: $(VENV)/build.done $(VENV)/load.done ## Load it and judge: PROFILE=steady, SLO_MS=100, HOST=http://... (else its own)
	@$(if $(OWN_SERVER),$(MODEL_THERE) || $(MAKE) --no-print-directory model)
	@RESNET18_SLO_MS=$(SLO_MS) $(BIN)/python -m loadtests run --profile $(PROFILE) --slo-ms $(SLO_MS) $(LOADED) $(ARGS)

plan: $(VENV)/autoscaling.done ## Plan a fleet: a packaged trace, or ARGS="--trace my.csv --rate 150" (ARGS=--help for all)
	@$(BIN)/python -m autoscaling plan $(ARGS)

clean: ## Remove what these commands made here: environment, store, caches
	rm -rf $(VENV) .venv-bench .bentoml .pytest_cache .mypy_cache .ruff_cache .hypothesis build

$(VENV)/bin/python:
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/%.done: requirements/%.txt requirements/constraints.txt requirements/runtime.txt | $(VENV)/bin/python
	@echo "Installing requirements/$*.txt ..."
	@$(PIP) -r $<
	@touch $@

# The peers' own environment: their requirements must not decide over ours.
.venv-bench/bench.done: requirements/bench.txt
	@echo "Installing requirements/bench.txt into .venv-bench ..."
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
