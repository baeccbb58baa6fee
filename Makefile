# The one definition of each command.  `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# conda exports a HOST that names its compiler's target: one of the environment counts if it is an address or a URL.
ifneq ($(filter environment%,$(origin HOST)),)
ifeq ($(shell case "$$HOST" in (http://*|https://*|localhost) echo yes;; (*[!0-9A-Fa-f.:]*|"") ;; (*) echo yes;; esac),)
PASSED_OVER := $(value HOST)
HOST := 127.0.0.1
endif
endif

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
export ORT_DISABLE_TELEMETRY := 1
export PYTHONPATH := $(CURDIR)
# One module in five is ever imported: Python compiles those on their first import and keeps them, which takes a minute
# less than pip would for all. An environment that keeps none would have each process compile them again.
export PYTHONDONTWRITEBYTECODE :=

# A value is taken as it is: no character of a path is make's, which would look for variables in it, or the shell's.
VALUES := BASE BENTOML_HOME DIR HOST PORT PROFILE PYTHON SLO_MS TORCH_INDEX VARIANT WEIGHTS
$(foreach name,$(VALUES),$(if $(filter command,$(firstword $(origin $(name)))),$(eval override $(name) := $$(value $(name)))))
ifeq ($(value HOST),localhost)
override HOST := 127.0.0.1
endif
quoted = '$(subst ','\'',$(value $(1)))'

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on --no-compile
# Test processes share the cores, so each has one thread of torch.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# Weights that were named are built; where they are in the store already, they become the newest again.
MODEL_THERE = $(if $(filter file,$(origin WEIGHTS)),ls -- "$$BENTOML_HOME"/models/*/*/manifest.json >/dev/null 2>&1,false)

LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11

.PHONY: help serve model bento image check test test-image lint lock audit load plan corpus fuzz bench bench-gpu clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  settings: PORT=3000 HOST=127.0.0.1 WEIGHTS=auto|imagenet|demo|PATH, and RESNET18_* (docs/operations.md)"
	@echo "  a value is taken as it is, any path too; ARGS are words for the shell: ARGS=\"--labels 'my names.json'\""

serve: $(VENV)/build.done ## Set up, build the model if there is none or WEIGHTS says which, and serve it on PORT
	@case $(call quoted,PORT) in (*[!0-9]*|"") \
		echo PORT=$(call quoted,PORT)" is no port: a number from 1 to 65535, such as 3000" >&2; exit 2;; esac
	@$(if $(ARGS),false,$(MODEL_THERE)) || $(MAKE) --no-print-directory model
	@$(if $(PASSED_OVER),echo HOST=$(call quoted,PASSED_OVER)" of the environment is no address: passed over")
	@echo "Once it says ready, open the address that it tells in a browser, or: curl -F image=@photo.jpg ADDRESS/classify"
	@exec $(BIN)/python -m bentoml serve service:ResNet18 --host=$(call quoted,HOST) --port=$(call quoted,PORT)

model: $(VENV)/build.done ## Build and register the model (WEIGHTS=..., ARGS="--help" for all options)
	@echo "Building the model ..."
	@$(BIN)/python -m model_build --weights=$(call quoted,WEIGHTS) $(ARGS)

bento: $(VENV)/dev.done ## Pack service, model and requirements into a bento
	@$(MODEL_THERE) || $(MAKE) --no-print-directory model
	@$(BIN)/python -m bentoml build

image: $(VENV)/dev.done ## Build the container image (VARIANT=cpu|gpu|..., BASE=..., TORCH_INDEX=...)
	@$(MODEL_THERE) || $(MAKE) --no-print-directory model
	@$(BIN)/python -m deploy.image --variant=$(call quoted,VARIANT) $(if $(value BASE),--base=$(call quoted,BASE)) \
		$(if $(value TORCH_INDEX),--torch-index=$(call quoted,TORCH_INDEX)) -- $(BUILD_ARGS)

test-image: $(VENV)/dev.done ## Build the image and run it for real: hardened, loaded, stopped, killed (4 minutes)
	@VARIANT=$(call quoted,VARIANT) TORCH_INDEX=$(call quoted,TORCH_INDEX) $(BIN)/python -m pytest -m image tests/deploy/test_container.py

lock: $(VENV)/dev.done ## Lock what images install, with hashes (LOCK_ARGS=... for an index of torch's CPU wheels)
	@set -o pipefail; $(BIN)/python -m deploy.variants | while read -r lock left_out; do \
		set --; if [ "$$left_out" ]; then set -- $(LOCK_ARGS) --no-emit-package "$$left_out"; fi; \
		$(LOCK) "$$@" -o requirements/$$lock.lock requirements/$$lock.txt || exit 1; \
	done

test: $(VENV)/dev.done ## Set up and run lint, types and every test but the image's
	@TESTS_STORE=$$(mktemp -d) && export TESTS_STORE && trap 'rm -rf "$$TESTS_STORE"' EXIT && \
		{ $(MAKE) --no-print-directory lint & lint=$$!; \
		$(PYTEST) -m 'not image and not alone' --numprocesses 4 --dist loadfile --no-loadscope-reorder; \
		tests=$$?; wait $$lint && [ $$tests = 0 ]; } && \
		$(BIN)/python -m pytest -m alone $$(grep -rl --include='*.py' 'pytest\.mark\.alone' tests)

check: $(VENV)/dev.done ## Lint, types, and the tests that need no model, server or browser: while you work
	@$(MAKE) --no-print-directory lint
	@$(PYTEST) -m 'not image and not alone and not slow' --ignore tests/model_build --numprocesses 2

lint: $(VENV)/dev.done ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy

audit: $(VENV)/dev.done ## Ask the public advisory database about every package that is served with
	@$(BIN)/uv tool run --from pip-audit==2.9.0 pip-audit --strict --disable-pip --no-deps -r requirements/runtime.txt

corpus: $(VENV)/dev.done ## Send every file of DIR to the service and print what came back (ARGS="--help" for options)
	@$(MODEL_THERE) || $(MAKE) --no-print-directory model
	@$(BIN)/python -m tests.corpus $(ARGS) -- $(if $(value DIR),$(call quoted,DIR))

fuzz: $(VENV)/fuzz.done ## Fuzz the image decoder for a minute, led by coverage (ARGS="--seconds 600")
	@$(BIN)/python -m tests.classifier.fuzz_pixels $(ARGS)

bench: $(VENV)/build.done .venv-bench/installed.done ## Measure it beside its peers, 20 to 30 minutes (ARGS=--quick for a smoke test)
	@for each in bench-triton bench-ray; do $(MAKE) --no-print-directory .venv-$$each/installed.done || \
		echo "requirements/$$each.txt can't be installed here; the table goes without it"; done
	@$(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(VENV)/build.done ## Measure it on this machine's GPU
	@$(BIN)/python -m benchmarks --only gpu $(ARGS)

# HOST is where `make serve` listens; only one that was given names a server to load.
OWN_SERVER := $(filter file,$(origin HOST))
LOADED = $(if $(OWN_SERVER),--serve "$(BIN)/python -m bentoml serve service:ResNet18 --host 127.0.0.1 --port {port}",--host=$(call quoted,HOST))

load: $(VENV)/build.done $(VENV)/load.done ## Load it and judge: PROFILE=steady, SLO_MS=100, HOST=http://... (else its own)
	@$(if $(OWN_SERVER),$(MODEL_THERE) || $(MAKE) --no-print-directory model)
	@RESNET18_SLO_MS=$(call quoted,SLO_MS) $(BIN)/python -m loadtests run --profile=$(call quoted,PROFILE) \
		--slo-ms=$(call quoted,SLO_MS) $(LOADED) $(ARGS)

plan: $(VENV)/autoscaling.done ## Plan a fleet: a packaged trace, or ARGS="--trace my.csv --rate 150" (ARGS=--help for all)
	@$(BIN)/python -m autoscaling plan $(ARGS)

clean: ## Remove what these commands made here: environment, store, caches
	rm -rf $(VENV) .venv-bench* .bentoml .pytest_cache .mypy_cache .ruff_cache .hypothesis build

$(VENV)/bin/python:
	@echo "Making a virtual environment in $(VENV) ..."
	@$(call quoted,PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version)'
	@$(call quoted,PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/%.done: requirements/%.txt requirements/constraints.txt requirements/runtime.txt | $(VENV)/bin/python
	@echo "Installing requirements/$*.txt ..."
	@$(PIP) -r $<
	@touch $@

# The peers' own environments: their requirements must not decide over ours, nor over one another's.
.venv-%/installed.done: requirements/%.txt
	@echo "Installing $< into .venv-$* ..."
	@$(call quoted,PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
