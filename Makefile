# neuron-atlas: `make help` lists what can be made.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VLLM_VENV ?= .venv-vllm
READY := $(VENV)/.ready

OUT ?= out/demo# where runs are kept
CONFIG ?=# further settings, such as CONFIG="explain=gpt4o capture.layers=[0,1]"
LAYERS ?= 0,1,2,3# of a sweep
NODES ?= 3# of a local cluster
SHAPE ?= bundled# of bench-capture's subject: bundled, wide, or llava-1.5-7b, which needs a GPU
PROGRAM ?=# another checkout that bench-model measures
COMPARE ?=# an earlier result of bench-model
PORT ?= 5000# of the MLflow server
NEEDS ?= browser# what the tests of test-with need
ONLY ?=# a kind of slow test: slow, kill, cluster or faults
TEST_PROCESSES ?= 2# that the tests are spread over; all that start Ray share one

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

setup: $(READY) ## Make the virtual environment with everything the program needs

demo: $(READY) ## Run the bundled subject over 1,000 drawn scenes, through every stage
	$(BIN)/neuron-atlas experiment=demo out=$(OUT) $(CONFIG)

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES)

test-slow: $(READY) ## Run the slow tests that need nothing special; ONLY=kill runs one kind of them
	$(BIN)/python -m pytest -rs --timeout 10800 -m "$(or $(ONLY),slow or kill or cluster or faults)"

test-with: $(READY) $(if $(filter vllm,$(NEEDS)),vllm) ## Run the tests that need NEEDS: browser, netns, slurm, triton or vllm
	$(if $(filter triton,$(NEEDS)),$(BIN)/python -m pip install --quiet triton)
	VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m pytest -rs -s -m "$(NEEDS)"

test-real: $(READY) ## Run every stage on SmolLM2-135M and 600 emoji, built in a cache folder (minutes; needs npm)
	$(BIN)/python -m neuron_atlas.infra.real.run $(CONFIG)

check: $(READY) ## Check format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: bench-capture bench-sae bench-model bench-evidence bench-effects bench-merge bench-score bench-clipseg bench-types bench-explain bench-site ## Run all benchmarks

bench-capture: $(READY) ## Measure the capture stage next to the bare forward pass; check its kernel and memory
	$(BIN)/python -m bench.capture --shape $(SHAPE)

bench-sae: $(READY) ## Measure capturing top-k SAE latents sparse beside dense, in time and memory
	$(BIN)/python -m bench.sae

bench-model: $(READY) ## Measure every stage on a model of 352,256 neurons (half an hour); COMPARE=OLD.json
	$(BIN)/python -m bench.model $(if $(COMPARE),--compare $(COMPARE)) $(if $(PROGRAM),--program $(PROGRAM))

bench-evidence: $(READY) ## Measure replaying evidence beside the bare forward pass, and its formats
	$(BIN)/python -m bench.evidence

bench-effects: $(READY) ## Measure attribution, exact ablation and output tokens beside bare forward passes
	$(BIN)/python -m bench.effects

bench-merge: $(READY) ## Measure merging beside reading and writing the same bytes
	$(BIN)/python -m bench.merge

bench-score: $(READY) ## Measure scoring in seconds and memory, and simulating beside a bare client
	$(BIN)/python -m bench.score

bench-clipseg: $(READY) ## Measure heat maps with an image looked at once beside the plain call
	$(BIN)/python -m bench.clipseg

bench-types: $(READY) ## Measure typing by tests beside shuffling labels, and its memory
	$(BIN)/python -m bench.types

bench-explain: $(READY) ## Measure the share of a provider's limits that calls use (six minutes)
	$(BIN)/python -m bench.explain

bench-site: $(READY) ## Measure writing, opening and filtering a site of 352,256 neurons (half an hour)
	$(BIN)/python -m bench.site

serve: $(READY) ## Serve the page and the site of the run in OUT, on loopback
	$(BIN)/neuron-atlas-serve $(OUT)

ui: $(READY) ## Open MLflow on the runs in OUT, on loopback; its links lead to the last run
	$(BIN)/python -m neuron_atlas.workflows.tracking.ui_command $(OUT) --port $(PORT)

log: $(READY) ## Send to the server at MLFLOW_TRACKING_URI what it lacks of the runs in OUT
	$(BIN)/python -m neuron_atlas.workflows.tracking.log_command $(OUT)

sweep: $(READY) ## Run once for each of LAYERS, as one sweep
	$(BIN)/neuron-atlas --multirun capture.layers=$(LAYERS) out=$(OUT) $(CONFIG)

run-cluster: $(READY) ## Run as a job of the Ray cluster at RAY_ADDRESS, or of NODES local Ray nodes
	$(BIN)/python -m neuron_atlas.infra.run_cluster --nodes $(NODES) -- \
	  $(if $(findstring experiment=,$(CONFIG)),,experiment=demo) out=$(OUT) $(CONFIG)

vllm: $(VLLM_VENV)/.ready ## Make the environment that vLLM runs in (for GPUs where there are some)

$(VLLM_VENV)/.ready: infra/vllm/install.sh infra/vllm/requirements-cpu.txt infra/vllm/constraints-gpu.txt
	PYTHON=$(PYTHON) infra/vllm/install.sh $(VLLM_VENV)

subject: $(READY) ## Train the bundled subject again (under an hour on two cores)
	$(BIN)/python -m neuron_atlas.infra.subject.train

clean: ## Remove what checks and builds have written; runs (out/) and the environment stay
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "neuron-atlas needs Python 3.11 or newer; set PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.PHONY: $(shell sed -nE 's/^([a-z-]+):.*\#\# .*/\1/p' $(MAKEFILE_LIST))
